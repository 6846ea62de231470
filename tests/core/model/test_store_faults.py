"""A store is whole or not there, whatever happens; and what is wrong with one is noticed, said, and made good."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from core.basemodel import stores as kept
from core.basemodel.find import find_model
from core.basemodel.store_index import StoreError
from core.basemodel.stores import INDEX, MANIFEST, WEIGHTS, delete_store, list_stores, stored, verify_store
from core.errors import ModelError
from core.model import store_read, store_write
from core.model.load import load_base
from core.model.store_read import BlockReader
from core.model.stored import Stores
from core.settings import QuantizationSettings
from core.system.hardware import Device
from core.system.process import child_environment
from core.workspace import ROOT, read_json, write_json

CPU = Device("cpu", "a CPU", 2**33, 2**33, 0)
Usage = namedtuple("Usage", "total used free")


class Place:
    """A base of a test's own, where its stores are, and what was reported."""

    def __init__(self, folder: Path, tiny: Path) -> None:
        self.base, self.stores, self.said = folder / "base", folder / "stores", list[str]()
        shutil.copytree(tiny, self.base)
        self.stores.mkdir()

    def load(self, **settings: Any) -> Any:
        self.said.clear()
        found = find_model(str(self.base))
        return load_base(found, QuantizationSettings(**settings), CPU, stores=Stores(self.stores, self.said.append))

    @property
    def expected(self) -> Any:
        return load_base(find_model(str(self.base)), QuantizationSettings(), CPU)

    @property
    def store(self) -> Path:
        [only] = list_stores(self.stores)
        assert only.whole
        return self.stores / only.key


@pytest.fixture
def place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("NIBBLE_STORES", "always")
    return Place(tmp_path, tiny)


def _equal(model: Any, expected: Any) -> None:
    ours, theirs = model.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _forks(place: Place, how: str, *more: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.core.model.store_forks", str(place.base), str(place.stores), how, *more]
    environment = {**child_environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _whole_or_none(place: Place, *more: str) -> list[dict[str, Any]]:
    """Killed at every call: what is left is whole or not there, and the next load makes what nobody disturbed."""
    lines = _forks(place, "kill", *more)
    assert {line["hash"] for line in lines} == {lines[0]["hash"]}, "the same bytes each time"
    assert len({line["then"]["held"] for line in lines}) == 1
    for line in lines:
        assert line["first"] is None, f"killed at {line['call']}"
        assert line["left"] in ([], ["begun"], ["whole"]), line
        assert len(line["after"]) == 1 and not line["after"][0].startswith("."), "what the crash left is cleared away"
    return lines


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@forks
def test_killed_at_a_sample_of_its_calls(place: Place) -> None:
    """Of the 26 or so that there are with a handful of its writes."""
    assert len(_whole_or_none(place, *map(str, sorted(random.Random(0).sample(range(20), 5))))) == 5


@forks
@pytest.mark.full
def test_killed_at_every_call(place: Place) -> None:
    calls = " ".join(line["call"] for line in _whole_or_none(place, "each"))
    for call in ("mkdir .making-", "open .making-", "flush .making-", "replace .making-", "rename .making-", "flush ."):
        assert call in calls
    assert calls.count(f"/{WEIGHTS}") > 100 and INDEX in calls and MANIFEST in calls


@forks
@pytest.mark.full
def test_killed_while_it_takes_the_place_of_another(place: Place) -> None:
    """One that cannot be used: its base was touched."""
    place.load()
    os.utime(place.base / "model.safetensors")
    calls = [line["call"] for line in _whole_or_none(place)]
    assert sum(call.startswith("rename") for call in calls) == 2


def _is_made_good(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        assert line["first"]["held"] == line["then"]["held"], "loaded all the same"
        if line["left"] == []:
            said = " ".join(line["first"]["reported"])
            assert "The disk became full" in said and "is loaded from its own files" in said
    assert {tuple(line["left"]) for line in lines} <= {(), ("whole",)}


@forks
def test_a_disk_that_is_full_from_the_middle_of_the_weights_on(place: Place) -> None:
    [line] = _forks(place, "full", "5")
    assert line["left"] == [] and WEIGHTS in line["call"]
    _is_made_good([line])


@forks
@pytest.mark.full
def test_a_disk_that_is_full_from_any_call_on(place: Place) -> None:
    lines = _forks(place, "full")
    assert len(lines) > 20
    _is_made_good(lines)


def test_what_cannot_be_stored_is_loaded_all_the_same(place: Place) -> None:
    with mock.patch.object(store_write, "taken_apart", side_effect=KeyError("a kind of its own")):
        _equal(place.load(), place.expected)
    [said] = place.said
    assert "can be kept (KeyError: " in said and list_stores(place.stores) == []


def _cut(store: Path) -> None:
    os.truncate(store / WEIGHTS, (store / WEIGHTS).stat().st_size // 2)


def _flip(name: str, at: float) -> Callable[[Path], None]:
    def flip(store: Path) -> None:
        data = bytearray((store / name).read_bytes())
        data[int(len(data) * at)] ^= 4
        (store / name).write_bytes(data)

    return flip


def _flip_in(part: str, last: bool) -> Callable[[Path], None]:
    """One bit of the first or the last tensor of that kind."""

    def flip(store: Path) -> None:
        pieces = [(b["at"] + p["at"], p) for b in read_json(store / INDEX)["blocks"] for p in b["pieces"]]
        at, _ = [each for each in pieces if each[1]["part"] == part][-1 if last else 0]
        data = bytearray((store / WEIGHTS).read_bytes())
        data[at] ^= 64
        (store / WEIGHTS).write_bytes(data)

    return flip


def _other_versions(store: Path) -> None:
    manifest = read_json(store / MANIFEST)
    manifest["versions"]["bitsandbytes"] = "0.1"
    write_json(store / MANIFEST, manifest)


def _foreign(store: Path) -> None:
    """An index that a stranger wrote, hashes and all: its places cannot be."""
    index = read_json(store / INDEX)
    index["blocks"][0]["pieces"][0]["shape"] = [2**40]
    (store / INDEX).write_text(json.dumps(index))
    manifest = read_json(store / MANIFEST)
    manifest["files"][INDEX] = {"bytes": (store / INDEX).stat().st_size, "sha256": kept.sha256_of(store / INDEX)}
    write_json(store / MANIFEST, manifest)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (_cut, "weights.bin has"),
    "a bit of the weights": (_flip_in("data", last=False), "is not what was written"),
    "a bit of a norm": (_flip_in("plain", last=True), "is not what was written"),
    "a bit of an offset": (_flip_in("offset", last=True), "is not what was written"),
    "a bit of the index": (_flip(INDEX, 0.5), "index.json has different content"),
    "no manifest": (lambda store: (store / MANIFEST).unlink(), "no readable manifest"),
    "half a manifest": (lambda store: os.truncate(store / MANIFEST, 100), "no readable manifest"),
    "no weights": (lambda store: (store / WEIGHTS).unlink(), "is not whole"),
    "other versions": (_other_versions, "made with other versions of bitsandbytes"),
    "a foreign index": (_foreign, "index is odd"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_said_deleted_and_made_anew(damage: str, place: Place) -> None:
    place.load()
    harm, sentence = DAMAGE[damage]
    harm(place.store)
    _equal(place.load(), place.expected)
    assert sentence in place.said[0] and place.said[0].endswith("It is deleted.")
    assert "is kept" in place.said[1] and len(place.said) == 2
    verify_store(stored(place.stores, place.store.name))
    _equal(place.load(), place.expected)


def test_a_damaged_store_that_cannot_be_made_anew_is_not_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.load()
    _flip_in("data", last=True)(place.store)
    monkeypatch.delenv("NIBBLE_STORES")  # so small a base gets none by itself
    _equal(place.load(), place.expected)
    assert len(place.said) == 1 and list_stores(place.stores) == []


@pytest.mark.parametrize("how", ["touched", "changed"])
def test_a_base_that_is_not_what_it_was(how: str, place: Place) -> None:
    from safetensors.torch import load_file, save_file

    place.load()
    file = place.base / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"] += 1 if how == "changed" else 0
    save_file(weights, file, {"format": "pt"})
    os.utime(file, ns=(1, 1))
    _equal(place.load(), place.expected)
    assert ("were touched since" in place.said[0]) == (how == "touched")
    assert "is kept" in place.said[-1]
    assert len(list_stores(place.stores)) == (2 if how == "changed" else 1)


def test_a_commit_of_the_hub_is_known_by_its_name(place: Place) -> None:
    """Its files in the cache do not change; another commit is another base."""
    here = find_model(str(place.base))
    settings = QuantizationSettings()
    keys = []
    for commit in ("aaaa", "aaaa", "bbbb"):
        found = replace(here, source="org/name", revision=commit)
        load_base(found, settings, CPU, stores=Stores(place.stores, place.said.append))
        keys.append(kept.store_key(found, settings, "float32", "cpu").name)
        os.utime(place.base / "model.safetensors")
    assert keys[0] == keys[1] != keys[2]
    assert ["is kept" in said for said in place.said] == [True, False, True]
    assert {each.original for each in list_stores(place.stores)} == {False}, "this cache holds no such model"


def test_a_disk_error_while_it_is_read(place: Place) -> None:
    place.load()
    with mock.patch.object(store_read, "_read_whole", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))):
        _equal(place.load(), place.expected)
    assert "cannot be read: Input/output error" in place.said[0]
    assert "is loaded from its own files" in place.said[-1], "what was made anew could not be read either"


def test_a_folder_that_takes_no_store(place: Place) -> None:
    with mock.patch.object(store_write.StoreWriter, "_add", side_effect=OSError(errno.EROFS, os.strerror(errno.EROFS))):
        _equal(place.load(), place.expected)
    [said] = place.said
    assert "can be kept: Read-only file system" in said and "is loaded from its own files" in said
    assert list_stores(place.stores) == []


def test_a_disk_without_room_is_said_before_anything_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIBBLE_STORES")
    monkeypatch.setattr(kept, "MIN_BYTES", 1)
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: Usage(10**12, 0, kept.LEAVE_BYTES + 1000))
    _equal(place.load(), place.expected)
    [said] = place.said
    assert "There is no room on the disk" in said and "is loaded from its own files" in said
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: Usage(10**12, 0, kept.LEAVE_BYTES + 10**6))
    place.load()
    assert "is kept" in place.said[0]


def test_which_bases_are_worth_a_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIBBLE_STORES")
    found = find_model(str(place.base))
    assert not kept.wants_store(found, QuantizationSettings(), place.stores), "half a gigabyte at least"
    monkeypatch.setattr(kept, "MIN_BYTES", 1)
    for bits in (4, 8, 16):
        assert kept.wants_store(found, QuantizationSettings(bits=bits), place.stores) == (bits < 16)
    monkeypatch.setenv("NIBBLE_STORES", "never")
    assert not kept.wants_store(found, QuantizationSettings(), place.stores)
    place.load()
    assert place.said == []


@pytest.mark.parametrize("bits", [4, 8])
def test_the_size_is_known_beforehand(bits: int, place: Place) -> None:
    """Within the padding of so small a model; embeddings and head count as 16 bits, and here take 32."""
    place.load(bits=bits)
    ends = 2 * 512 * 64 * 2
    size = (place.store / WEIGHTS).stat().st_size - ends
    assert abs(kept.packed_bytes(find_model(str(place.base)), QuantizationSettings(bits=bits)) - size) < 0.35 * size


def test_files_that_do_not_fit_are_refused_as_ever(place: Place) -> None:
    from safetensors.torch import load_file, save_file

    file = place.base / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError) as expected:
        _ = place.expected
    with pytest.raises(ModelError) as error:
        place.load()
    assert str(error.value) == str(expected.value) and list_stores(place.stores) == []


LOAD = """
import sys
import time
from pathlib import Path
from core.basemodel.find import find_model
from core.model.load import load_base
from core.model.stored import Stores
from core.settings import QuantizationSettings
from tests.core.model.test_store_faults import CPU
from core.model import store_write
add = store_write.StoreWriter._write
store_write.StoreWriter._write = lambda self, block: (time.sleep(0.5), add(self, block))
load_base(find_model(sys.argv[1]), QuantizationSettings(), CPU, stores=Stores(Path(sys.argv[2]), print))
"""


SMALL = """
import resource, sys
from pathlib import Path
from core.basemodel.find import find_model
from core.basemodel.stores import store_key
from core.model.load import load_base
from core.model.stored import Stores
from core.settings import QuantizationSettings
from core.system.hardware import Device
from bench.load_model import SMALL, CONFIG, write_base

CPU = Device("cpu", "a CPU", 2**33, 2**33, 0)
folder = Path(sys.argv[1])
for name, sizes in (("warm", {}), ("base", {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 48})):
    write_base(folder / name, {**SMALL, **sizes, "num_attention_heads": 8, "num_key_value_heads": 8})
(folder / "stores").mkdir()
load_base(find_model(str(folder / "warm")), QuantizationSettings(), CPU, stores=Stores(folder / "stores"))
held = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + int(sys.argv[2]), resource.RLIM_INFINITY))
load_base(find_model(str(folder / "base")), QuantizationSettings(), CPU, stores=Stores(folder / "stores", print))
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="a limit on memory that only Linux has")
def test_a_store_is_made_in_far_less_memory_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 79 MB, in 40; opening it afterwards takes all of it, so that then memory runs out, and it is there."""
    monkeypatch.setenv("NIBBLE_STORES", "always")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-c", SMALL, str(tmp_path), str(40 * 2**20)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "memory" in done.stderr.splitlines()[-1], done.stderr[-1000:]
    [large, _] = sorted(list_stores(tmp_path / "stores"), key=lambda each: -each.bytes)
    assert large.whole and large.bytes > 75 * 10**6
    verify_store(stored(tmp_path / "stores", large.key))


def test_two_that_want_the_same_store_make_one(place: Place) -> None:
    command = [sys.executable, "-c", LOAD, str(place.base), str(place.stores)]
    both = [
        subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("is kept" in each for each in said) >= 1
    waited = [each for each in said if "waiting for it" in each]
    assert len(waited) <= 1, "one makes it, and the other waits, or comes later and finds it"
    assert len(list_stores(place.stores)) == 1
    _equal(place.load(), place.expected)


def test_a_store_is_waited_for_and_then_opened(place: Place) -> None:
    """By one that comes while another process has it in hand."""
    key = kept.store_key(find_model(str(place.base)), QuantizationSettings(), "float32", "cpu")
    place.load()
    held = place.store.rename(place.stores / "elsewhere")
    lock = kept.try_lock(kept._lock_file(place.stores, key.name))
    assert lock is not None
    command = [sys.executable, "-c", LOAD, str(place.base), str(place.stores)]
    waiting = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None and "waiting for it" in waiting.stdout.readline()
    held.rename(place.stores / key.name)
    written = (place.store / WEIGHTS).stat().st_mtime_ns
    lock.release()
    waiting.communicate(timeout=300)
    assert waiting.returncode == 0 and (place.store / WEIGHTS).stat().st_mtime_ns == written, "and not made again"


def test_a_deleted_store_is_gone_and_what_reads_it_reads_on(place: Place) -> None:
    place.load()
    store = stored(place.stores, place.store.name)
    reader = BlockReader(store, ahead=1)
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    assert delete_store(place.stores, store.folder.name) == size
    assert list_stores(place.stores) == []
    assert [block.name for block, _ in reader] == [block.name for block in store.index.blocks]
    reader.close()
    with pytest.raises(StoreError, match="There is no quantised copy"):
        delete_store(place.stores, store.folder.name)
    _equal(place.load(), place.expected)


def test_what_is_being_made_is_not_deleted(place: Place) -> None:
    (place.stores / ".making-0123").mkdir()
    lock = kept.try_lock(kept._lock_file(place.stores, "0123"))
    assert lock is not None
    with pytest.raises(StoreError, match="is being made"):
        delete_store(place.stores, "0123")
    kept.sweep(place.stores)
    assert (place.stores / ".making-0123").is_dir()
    lock.release()
    kept.sweep(place.stores)
    assert not (place.stores / ".making-0123").exists()


@pytest.mark.parametrize("name", ["", "..", "../base", "a/b", ".x.lock", "nothing"])
def test_only_stores_are_deleted(name: str, place: Place) -> None:
    place.load()
    before = sorted(place.stores.rglob("*"))
    with pytest.raises(StoreError):
        delete_store(place.stores, name)
    with pytest.raises(StoreError):
        stored(place.stores, name)
    assert sorted(place.stores.rglob("*")) == before and (place.base / "config.json").exists()


def test_the_list_says_what_there_is(place: Place) -> None:
    place.load()
    place.load(bits=8)
    (place.stores / ".making-0123").mkdir()
    (place.stores / ".making-0123" / WEIGHTS).write_bytes(bytes(1000))
    found = {(each.bits, each.whole, each.original) for each in list_stores(place.stores)}
    assert found == {(4, True, True), (8, True, True), (None, False, False)}
    shutil.rmtree(place.base)
    assert {each.original for each in list_stores(place.stores)} == {False}
    assert delete_store(place.stores, "0123") == 1000


def test_a_verification_reads_all_of_it(place: Place) -> None:
    place.load()
    verify_store(stored(place.stores, place.store.name))
    _flip_in("data", last=False)(place.store)
    with pytest.raises(StoreError, match=r"weights\.bin has different content"):
        verify_store(stored(place.stores, place.store.name))
