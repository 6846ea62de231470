"""An archive from a stranger writes nothing outside of its folder, nothing in disguise, and not without end."""

from __future__ import annotations

import gzip
import io
import json
import stat
import struct
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.server import uploads
from app.server.uploads import OWNER, PREFIX, Uploads, forget
from core.data.read import open_source
from core.errors import DataError, NibbleError
from core.export.import_adapter import LIMITS, import_adapter
from core.untrusted.archives import ArchiveError, ArchiveLimits, entries_of, unpack
from core.untrusted.paths import Reach
from core.workspace import Workspace

SMALL = ArchiveLimits(entries=20, bytes=2_000_000, ratio=100, free_bytes=10_000, depth=6)
CONTENT = b"canary"

# Names that an entry must not have, each with what it is.
NAMES = {
    "dots": "../evil.txt",
    "dots further in": "a/../../evil.txt",
    "an absolute path": "/tmp/evil.txt",
    "two slashes": "//host/evil.txt",
    "backslashes": "..\\evil.txt",
    "a drive": "C:/evil.txt",
    "a drive without a slash": "C:evil.txt",
    "another stream": "a.txt:evil",
    "a home": "~/evil.txt",
    "a device": "con",
    "a device with an ending": "a/nul.txt",
    "a device with a space": "aux .txt",
    "a dot": "./a/./evil.txt",
    "nothing between slashes": "a//evil.txt",
    "a dot at the end": "evil.txt.",
    "a space at the end": "a /evil.txt",
    "a line end": "evil\n.txt",
    "an escape of the terminal": "\x1b[2Jevil",
    "a name too long": "a" * 300,
    "folders too deep": "a/" * 9 + "evil.txt",
}


def _zip(folder: Path, names: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    path = folder / "packed.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in names.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            if change is not None:
                change(entry)
            packed.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def _tar(folder: Path, names: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None) -> Path:
    path = folder / "packed.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as packed:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if change is not None:
                change(entry)
            packed.addfile(entry, io.BytesIO(content))
    return path


def _refused(path: Path, folder: Path, said: str = "") -> None:
    """It is refused when it is listed, and when it is unpacked without having been; nothing is left anywhere."""
    target = folder / "target" / "file"
    target.parent.mkdir(exist_ok=True)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ArchiveError, match=said):
        entries_of(path, SMALL)
    with pytest.raises(ArchiveError, match=said):
        unpack(path, {"evil.txt": target}, SMALL)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_what_is_in_order_is_unpacked_as_it_was(pack: Callable[..., Path], tmp_path: Path) -> None:
    path = pack(tmp_path, {"a/b/rows.txt": b"one", "tout seul é.txt": b"two", "left.bin": b"three"})
    assert [(entry.name, entry.bytes) for entry in entries_of(path, SMALL)][:2] == [
        ("a/b/rows.txt", 3),
        ("tout seul é.txt", 3),
    ]
    unpack(path, {"tout seul é.txt": tmp_path / "one.txt", "a/b/rows.txt": tmp_path / "two.txt"}, SMALL)
    assert ((tmp_path / "one.txt").read_bytes(), (tmp_path / "two.txt").read_bytes()) == (b"two", b"one")


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_leads_elsewhere_is_refused(name: str, pack: Callable[..., Path], tmp_path: Path) -> None:
    _refused(pack(tmp_path, {"good.txt": b"x", name: CONTENT}), tmp_path, "not unpacked")


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.parametrize("twins", [("a.txt", "A.TXT"), ("é.txt", "e\u0301.txt"), ("b.txt", "b.txt")])
def test_two_files_of_one_name_are_refused(twins: tuple[str, str], pack: Callable[..., Path], tmp_path: Path) -> None:
    if twins[0] == twins[1]:
        with tarfile.open(tmp_path / "two.tar", "w") as packed:
            for _ in twins:
                packed.addfile(tarfile.TarInfo(twins[0]))
        _refused(tmp_path / "two.tar", tmp_path, "twice")
    else:
        _refused(pack(tmp_path, dict.fromkeys(twins, b"x")), tmp_path, "twice")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_what_is_no_file_is_refused(kind: int, tmp_path: Path) -> None:
    def change(entry: zipfile.ZipInfo) -> None:
        entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16

    _refused(_zip(tmp_path, {"evil.txt": b"/etc/passwd"}, change), tmp_path, "a link to another place, or a device")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_a_tar_with_what_is_no_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0

    _refused(_tar(tmp_path, {"evil.txt": b""}, change), tmp_path)


def test_a_link_that_a_later_entry_goes_through_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "packed.tar", "w") as packed:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        packed.addfile(link)
        entry = tarfile.TarInfo("way/evil.txt")
        entry.size = len(CONTENT)
        packed.addfile(entry, io.BytesIO(CONTENT))
    _refused(tmp_path / "packed.tar", tmp_path, "a link to another place, or a device")


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_a_bomb_is_refused_before_it_goes_off(pack: Callable[..., Path], tmp_path: Path) -> None:
    began = time.monotonic()
    _refused(pack(tmp_path, {"evil.txt": bytes(1_900_000)}), tmp_path, "far more than it is|unpacks to")
    _refused(pack(tmp_path, {f"{n}.txt": b"x" for n in range(21)}), tmp_path, "files|far more")
    _refused(
        pack(tmp_path, {f"{n}.txt": np.random.default_rng(n).bytes(300_000) for n in range(9)}), tmp_path, "at most"
    )
    assert time.monotonic() - began < 5


def test_a_zip_whose_entries_share_their_bytes_is_refused(tmp_path: Path) -> None:
    """One packed block that two hundred entries point to: each is modest, all of them are not (Fifield, 2019)."""
    path = _zip(tmp_path, {"0.txt": b"\0" * 90_000 + np.random.default_rng(0).bytes(1_000)})
    raw = path.read_bytes()
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    central = raw[start:end]
    entries = b"".join(central.replace(b"0.txt", b"%d.txt" % n) for n in range(10))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 10, 10, len(entries), start, 0)
    path.write_bytes(raw[:start] + entries + tail)
    loose = ArchiveLimits(entries=20, bytes=2_000_000, ratio=100, free_bytes=10_000)
    with pytest.raises(ArchiveError, match="all of it"):
        entries_of(path, loose)


def test_a_zip_that_lies_about_its_sizes_is_cut_off(tmp_path: Path) -> None:
    path = _zip(tmp_path, {"evil.txt": b"x" * 5_000})
    raw = path.read_bytes()
    lie = raw.replace(struct.pack("<L", 5_000), struct.pack("<L", 50))
    assert lie != raw
    path.write_bytes(lie)
    with pytest.raises(ArchiveError):
        unpack(path, {"evil.txt": tmp_path / "out"}, SMALL)
    assert not (tmp_path / "out").exists() or (tmp_path / "out").stat().st_size <= 50


def test_a_tar_whose_header_is_a_bomb_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("evil.txt")
    header.type, header.size = tarfile.XHDTYPE, 1_000_000
    path = tmp_path / "packed.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1_000_448)))
    _refused(path, tmp_path)


def test_a_tar_of_less_than_no_bytes_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("evil.txt")
    header.pax_headers = {"size": "-1"}
    path = tmp_path / "packed.tar"
    path.write_bytes(header.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    _refused(path, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"text", gzip.compress(b"text" * 999, mtime=0)]
)
def test_what_is_no_archive_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "packed.zip").write_bytes(content)
    _refused(tmp_path / "packed.zip", tmp_path, "not a readable archive|damaged|far more")


def _adapter(folder: Path) -> dict[str, bytes]:
    weights = folder / "w.safetensors"
    save_file({"base_model.model.x.lora_A.weight": np.ones((4, 8), np.float32)}, weights)
    config = {"peft_type": "LORA", "base_model_name_or_path": "starter", "r": 4}
    return {
        "mine/adapter_config.json": json.dumps(config).encode(),
        "mine/adapter_model.safetensors": weights.read_bytes(),
        "mine/train.py": b"print('not wanted')",
    }


def test_an_adapter_comes_in_as_a_tar_too(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    made = import_adapter(workspace, _tar(tmp_path, _adapter(tmp_path)))
    assert made.name == "packed"
    assert sorted(path.name for path in made.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "mine/con"])
def test_an_adapter_with_one_bad_name_does_not_come_in(name: str, pack: Callable[..., Path], tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    with pytest.raises(NibbleError, match="not unpacked"):
        import_adapter(workspace, pack(tmp_path, {**_adapter(tmp_path), name: CONTENT}))
    assert list(workspace.adapters.iterdir()) == []


def test_an_adapter_cannot_name_a_base_of_this_machine_where_others_come_in(tmp_path: Path) -> None:
    """Whether there is such a folder is not said either."""
    workspace, said = Workspace.open(tmp_path / "workspace"), []
    (tmp_path / "model").mkdir()
    for named in ("model", "no-model"):
        files = _adapter(tmp_path)
        config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / named)}
        files["mine/adapter_config.json"] = json.dumps(config).encode()
        with pytest.raises(NibbleError) as refusal:
            import_adapter(workspace, _zip(tmp_path, files), reach=Reach.of(workspace, listening=True))
        said.append(str(refusal.value).replace("no-model", "model"))
    assert said[0] == said[1]
    assert "another machine" in said[0]


def test_a_dataset_that_is_a_bomb_of_many_small_files_is_refused(tmp_path: Path) -> None:
    row = b'{"prompt": "a", "completion": "' + b"b" * 3_999_900 + b'"}\n'
    path = _zip(tmp_path, {f"{n}.jsonl": row for n in range(26)})
    with pytest.raises(DataError, match="far more than it is"):
        open_source(path)


def test_a_link_in_a_zip_of_data_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.jsonl", '{"prompt": "a", "completion": "b"}\n')
        link = zipfile.ZipInfo("b.jsonl")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    assert [file.name for file in open_source(path).files] == ["rows.zip/a.jsonl"]


def test_uploads_have_a_folder_of_their_own_that_goes_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = tmp_path / f"{PREFIX}killed"
    (killed / "files" / "abc").mkdir(parents=True)
    (killed / OWNER).touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}making").mkdir()
    one = Uploads()
    assert not killed.exists(), "what a killed server has left is taken away at the next start"
    assert elsewhere.is_dir() and (tmp_path / f"{PREFIX}making").is_dir()
    two = Uploads()
    assert one.files.is_dir(), "that of a server that lives is not"
    assert one.files.stat().st_mode & 0o077 == 0 and one.files.parent.stat().st_mode & 0o077 == 0
    one.clear()
    two.clear()
    assert not one.files.parent.exists() and not two.files.parent.exists()


def test_an_upload_that_has_been_copied_is_taken_away_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_files", lambda: tmp_path / "uploads")
    own, other, link = tmp_path / "uploads" / "a" / "x.zip", tmp_path / "x.zip", tmp_path / "uploads" / "link"
    own.parent.mkdir(parents=True)
    own.touch()
    other.touch()
    link.symlink_to(other)
    forget([str(own), str(other), str(link), str(tmp_path / "nothing")])
    assert (own.exists(), other.exists()) == (False, True)


def test_the_limits_of_an_adapter_hold_the_largest_that_there_are() -> None:
    assert LIMITS.bytes >= 50_000_000_000
    assert LIMITS.entries >= 500
