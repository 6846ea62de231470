"""A model's own code: which files would run, and whether the person has agreed to exactly those. Imports no torch.

transformers never runs a model's code here (`trust_remote_code` stays off). A model of an unknown kind may come with
Python files; a person who has seen them can agree to them, for that model at that commit, or for a folder with its
present files. The agreement is a folder in `state/trust`, named by a hash over all of it, with the very files that were
shown; only those are run.
"""

import hashlib
import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from core.basemodel.architectures import classes_of, needs_code
from core.basemodel.find import FoundModel
from core.basemodel.hub import fetch_small, look_up, snapshot_folder
from core.errors import ModelError
from core.sizes import show_bytes
from core.untrusted.model_files import read_settings
from core.workspace import Workspace, move, read_json, write_json

MOST_FILES, MOST_BYTES = 100, 5_000_000
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
RECORD = "agreed.json"


@dataclass(frozen=True)
class CodeFile:
    """One Python file of a model."""

    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Of its content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def text(self) -> str:
        """Its content to read; what is no UTF-8 shows as such."""
        return self.content.decode("utf-8", "replace")


@dataclass(frozen=True)
class ModelCode:
    """What a model brings to be run: `classes` are 'file.Class' by transformers' own names for their purposes."""

    source: str
    revision: str | None
    label: str
    classes: dict[str, str]
    files: tuple[CodeFile, ...]

    @property
    def digest(self) -> str:
        """Names this code of this model at this commit, and no other."""
        listed = [[file.name, file.sha256] for file in self.files]
        return hashlib.sha256(json.dumps([self.source, self.revision, self.classes, listed]).encode()).hexdigest()

    @property
    def named(self) -> str:
        """Which model it is: an id with its commit."""
        return f"{self.label} at commit {self.revision[:7]}" if self.revision else self.label

    def summary(self) -> str:
        """'3 Python files, 41,210 bytes'."""
        size = sum(len(file.content) for file in self.files)
        return f"{len(self.files)} Python file{'s' * (len(self.files) != 1)}, {size:,} bytes"


_whose: list[Workspace] = []


def trust_only(workspace: Workspace) -> None:
    """From now on, the agreements in `workspace` are the ones that count in this process."""
    _whose[:] = [workspace]


def trusted() -> Workspace:
    """The workspace whose agreements count in this process."""
    return _whose[0] if _whose else Workspace.open(None)


class CodeNotAgreed(ModelError):
    """A model that would run code of its own, to which nobody has agreed."""


def code_of(found: FoundModel) -> ModelCode | None:
    """The code that `found` would run; None where it needs none. Of an id its Python files are fetched, and not run.

    Raises ModelError: unknown and without code, code in another repository, too much of it, no network.
    """
    if not needs_code(found.config):
        return None
    folder, names = _python_files(found)
    classes = classes_of(found.config)
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        named = read_settings(tokenizer).get("auto_map")
        classes |= classes_of({"auto_map": {"AutoTokenizer": named} if isinstance(named, list) else named})
    for value in classes.values():
        if "--" in value:
            raise ModelError(
                f"{found.label} loads code from another repository ({value.partition('--')[0][:80]}), which can change "
                "at any time. Choose another model."
            )
        if not _CLASS.fullmatch(value):
            raise ModelError(f"{found.label}: its config.json names {value[:60]!r} as a class, which is not valid.")
    files = tuple(CodeFile(name, _content(folder / name)) for name in names)
    return ModelCode(found.source, found.revision, found.label, classes, files)


def _python_files(found: FoundModel) -> tuple[Path, list[str]]:
    """The folder that holds the model's Python files, and their names below it."""
    if found.revision is None:
        assert found.folder is not None
        folder = found.folder
        files = sorted(path for path in folder.rglob("*.py") if path.is_file())
        if any(path.is_symlink() or not path.resolve().is_relative_to(folder) for path in files):
            raise ModelError(
                f"{found.label}: one of its Python files is a link to another place. Put the file itself there."
            )
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    else:
        folder = snapshot_folder(found.source, found.revision)
        sizes = _fetched(found, folder)
    _refuse_too_much(found, sizes)
    return folder, sorted(sizes)


def _fetched(found: FoundModel, folder: Path) -> dict[str, int]:
    """A repository's Python files with their sizes; they and the tokenizer's settings are brought, and nothing else."""
    files = look_up(found.source, found.revision).files
    sizes = {name: file.bytes for name, file in files.items() if name.endswith(".py")}
    _refuse_too_much(found, sizes)
    for name in [*sizes, *({"tokenizer_config.json"} & set(files))]:
        if not (folder / name).is_file():
            fetch_small(found.source, name, found.revision)
    return sizes


def _refuse_too_much(found: FoundModel, sizes: dict[str, int]) -> None:
    if not sizes or len(sizes) > MOST_FILES or sum(sizes.values()) > MOST_BYTES:
        raise ModelError(
            f"{found.label} brings {len(sizes):,} Python files of {show_bytes(sum(sizes.values()))} in total; 1 to "
            f"{MOST_FILES} files of at most {show_bytes(MOST_BYTES)} can be reviewed here."
            f" Choose another model."
        )


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file.name} of the model cannot be read: {error.strerror or error}.") from None


def agree(workspace: Workspace, code: ModelCode) -> None:
    """Record that the person agrees to `code`, with the files. Call it only where they were shown."""
    home = workspace.state / "trust"
    home.mkdir(exist_ok=True)
    if agreed_folder(workspace, code) is not None:
        return
    with tempfile.TemporaryDirectory(dir=home, prefix=".") as partial:
        fresh = Path(partial) / "code"
        for file in code.files:
            target = fresh / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
        files = {file.name: file.sha256 for file in code.files}
        about = {"model": code.source, "revision": code.revision, "classes": code.classes, "files": files}
        write_json(fresh / RECORD, {**about, "agreed": time.time()})
        shutil.rmtree(home / code.digest, ignore_errors=True)
        move(fresh, home / code.digest)


def agreed_folder(workspace: Workspace, code: ModelCode) -> Path | None:
    """The folder with the agreed files of `code`, each as it was; None where there is no such agreement."""
    folder = workspace.state / "trust" / code.digest
    if not (folder / RECORD).is_file():
        return None
    for file in code.files:
        kept = folder / file.name
        if not kept.is_file() or kept.read_bytes() != file.content:
            return None
    return folder


def require_agreed(workspace: Workspace, found: FoundModel) -> Path | None:
    """The folder to run the code of `found` from; None where it needs none. Raises CodeNotAgreed, ModelError."""
    if not needs_code(found.config):
        return None
    if found.revision:
        folder = _agreed_at_commit(workspace, found)
    else:
        code = code_of(found)
        folder = agreed_folder(workspace, code) if code is not None else None
    if folder is None:
        raise CodeNotAgreed(
            f"{found.label} comes with Python code that would run on this machine with all your rights. Review it "
            f"and agree on the Train tab, or with --agree-to-code; or choose another model."
        )
    return folder


def _agreed_at_commit(workspace: Workspace, found: FoundModel) -> Path | None:
    """A commit never changes: what was agreed to for it is known without asking the network again."""
    home = workspace.state / "trust"
    for folder in sorted(home.iterdir()) if home.is_dir() else ():
        record = read_json(folder / RECORD)
        of = (record.get("model"), record.get("revision")) if isinstance(record, dict) else None
        if of != (found.source, found.revision):
            continue
        files = tuple(CodeFile(str(name), _content(folder / str(name))) for name in record["files"])
        code = ModelCode(found.source, found.revision, found.label, record["classes"], files)
        if code.digest == folder.name:
            return folder
    return None
