"""What a path that somebody typed, or that a request carries, may reach: resolved first, then held against the rules.

Two modes. A person at the machine may use any folder of theirs. Where others reach the app, only the workspace's own
folders and those that the command line allowed. In neither what the app itself keeps: its key, its locks, and the
access token of Hugging Face. Ids, which are no paths, are let through only in the form in which the store makes them.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import NibbleError

if TYPE_CHECKING:
    from core.workspace import Workspace

# What file systems take: bytes of a whole path, and of each name in it.
LONGEST_PATH, LONGEST_NAME = 4096, 255
# The folders of a workspace that hold what people bring and take away.
OWN_FOLDERS = ("datasets", "models", "adapters", "exports")
SHOWN = 100
_SYSTEM = tuple(Path(folder) for folder in ("/dev", "/proc", "/sys"))
_SHARED_MEMORY = Path("/dev/shm")
_DRIVE = re.compile(r"[A-Za-z]:")
# Windows opens devices under these names, whatever their ending.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³])\s*(\..*|:.*)?", re.IGNORECASE)
# A word, or an id of Hugging Face, with or without 'hf:'.
_NAME = re.compile(r"(hf:)?[A-Za-z0-9][\w.-]{0,200}(/[A-Za-z0-9][\w.-]{0,200})?", re.ASCII)
# A file in a dataset of Hugging Face.
_FILE_NAME = re.compile(r"hf:[A-Za-z0-9][\w.-]{0,200}(/[\w.-]{1,200}){2,9}", re.ASCII)
_RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}-[a-z0-9-]{1,40}", re.ASCII)


def is_run_id(text: str) -> bool:
    """Whether `text` is an id as the store makes them; of nothing else a path may be made."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None


def is_device_name(name: str) -> bool:
    """Whether Windows opens a device under this name of a file."""
    return _DEVICE.fullmatch(name) is not None


@dataclass(frozen=True)
class Reach:
    """Where typed paths may lead: below `roots`, or `everywhere`; into `closed` never, which may be files too."""

    roots: tuple[Path, ...]
    everywhere: bool
    closed: tuple[Path, ...] = ()

    @classmethod
    def of(cls, workspace: Workspace, listening: bool = False, allowed: Iterable[str | Path] = ()) -> Reach:
        """The reach of who uses `workspace`: a person at the machine, or with `listening` whoever gets in.

        `allowed` are the folders of --allow-path. Raises NibbleError where one of them is no folder.
        """
        closed = (workspace.state.resolve(), *_token_files())
        anywhere = cls((), True, closed)
        more = [anywhere._allowed(str(folder), "--allow-path", "read") for folder in allowed]
        missing = next((folder for folder in more if not folder.is_dir()), None)
        if missing is not None:
            raise NibbleError(f"--allow-path {missing} is not a folder. Give an existing one.")
        own = [workspace.path.resolve() / name for name in OWN_FOLDERS]
        return cls((*own, *more), not listening, closed)

    def read(self, given: str, what: str) -> Path:
        """The file or folder that `given` leads to, with all links followed; it need not be there.

        `what` begins the refusal: 'The dataset'. Raises NibbleError: not a path, not allowed, or a device.
        """
        path = self._allowed(given, what, "read")
        try:
            kind = path.stat().st_mode
        except OSError:
            return path
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise NibbleError(f"{what} {_shown(given)} is a device or a pipe. Use a file or a folder.")
        if stat.S_ISDIR(kind):
            self._refuse_links(path, given, what)
        return path

    def write(self, given: str, what: str, below: Path | None = None) -> Path:
        """The place that `given` leads to, with all links followed; one without a root lies `below`.

        Raises NibbleError as `read` does, and for names that Windows keeps for devices: others shall open it.
        """
        path = self._allowed(given, what, "write to", below)
        device = next((part for part in path.parts if is_device_name(part)), None)
        if device is not None:
            raise NibbleError(f"{what} {_shown(given)}: {device!r} is a device's name on Windows. Choose another name.")
        return path

    def name_or_path(self, given: str, what: str) -> str:
        """`given` where it is a name, as of something on Hugging Face, else the path that `read` gives, as text."""
        name = given.strip() if isinstance(given, str) else ""
        if (_NAME.fullmatch(name) and not Path(name).exists()) or _FILE_NAME.fullmatch(name):
            return name
        return str(self.read(given, what))

    def _allowed(self, given: str, what: str, do: str, below: Path | None = None) -> Path:
        path = _resolved(_checked(given, what), given, what, below)
        if any(_inside(path, each) for each in self.closed):
            raise NibbleError(
                f"{what} {_shown(given)} is in a place where keys are stored, which Nibble does not use. Choose "
                f"another place."
            )
        on_system = any(path.is_relative_to(each) for each in _SYSTEM) and not path.is_relative_to(_SHARED_MEMORY)
        if on_system:
            raise NibbleError(f"{what} {_shown(given)} points to a device, not a file. Choose another place.")
        if not self._is_open(path):
            raise NibbleError(
                f"{what} {_shown(given)} is outside the folders that this app may {do}. Since others can reach it, "
                f"it uses only its own folders and those given at the start with --allow-path FOLDER."
            )
        return path

    def _is_open(self, path: Path) -> bool:
        return self.everywhere or any(_inside(path, root) for root in self.roots)

    def _refuse_links(self, folder: Path, given: str, what: str) -> None:
        """A folder's files are read by their names: neither they nor links among them may be what is closed."""
        if any(_inside(each, folder) for each in self.closed):
            raise NibbleError(f"{what} {_shown(given)} also contains this machine's keys. Choose a separate folder.")
        try:
            links = list(_links_in(folder))
            targets = [(each, each.resolve()) for each in links]
        except (OSError, RuntimeError):
            return
        for link, target in targets:
            if not self._is_open(target) or any(_inside(target, each) for each in self.closed):
                raise NibbleError(
                    f"{what} {_shown(given)} holds {link.name!r}, a link to a place this app may not read. Put the "
                    f"file itself into the folder."
                )


def _checked(given: str, what: str) -> str:
    """The text, where it can be a path of this system at all. Touches no disk: some names do harm when looked up."""
    if not isinstance(given, str):
        raise NibbleError(f"{what} is not a path. Enter it as text.")
    text = given.strip()
    if not text:
        raise NibbleError(f"{what} is missing. Enter its path.")
    try:
        size = len(os.fsencode(text))
        longest = max(len(os.fsencode(part)) for part in re.split(r"[\\/]" if os.name == "nt" else "/", text))
    except UnicodeEncodeError:
        raise NibbleError(
            f"{what} {_shown(given)} contains a character not allowed in file names. Enter it again."
        ) from None
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in text):
        raise NibbleError(f"{what} {_shown(given)} contains a character not allowed in file names. Enter it again.")
    if size > LONGEST_PATH or longest > LONGEST_NAME:
        raise NibbleError(f"{what} {_shown(given)} is too long. Enter a shorter path.")
    if text.startswith(("\\\\", "//", "\\/", "/\\")):
        raise NibbleError(f"{what} {_shown(given)} is on another machine. Connect it as a drive or folder of this one.")
    if os.name != "nt" and _DRIVE.match(text):
        raise NibbleError(f"{what} {_shown(given)} names a Windows drive, which this system does not have.")
    if os.name == "nt" and (_DRIVE.fullmatch(text[:2]) and text[2:3] not in ("\\", "/") or ":" in text[2:]):
        raise NibbleError(f"{what} {_shown(given)} is not a full path. Enter it with drive and folders.")
    if os.name == "nt" and any(is_device_name(part) for part in re.split(r"[\\/]", text)):
        raise NibbleError(f"{what} {_shown(given)} is a device, not a file. Choose another place.")
    return text


def _resolved(text: str, given: str, what: str, below: Path | None) -> Path:
    try:
        path = Path(text).expanduser()
        return (path if below is None else below / path).resolve()
    except (OSError, RuntimeError, ValueError):  # no such home, links in a circle
        raise NibbleError(f"{what} {_shown(given)} does not exist. Check it.") from None


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder` or lies in it: by name, and by what the system says is the same file.

    The second counts where capital letters or composed ones do not tell names apart, and for folders bound elsewhere.
    """
    if path.is_relative_to(folder):
        return True
    mark = _mark(folder)
    return mark is not None and any(_mark(each) == mark for each in (path, *path.parents))


def _links_in(folder: Path, deepest: int = 3) -> Iterator[Path]:
    """The links in a folder and in those below that a dataset's splits may lie in (core/data/read/folders.py)."""
    with os.scandir(folder) as entries:  # there may be a great many
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif deepest and entry.is_dir() and not entry.name.startswith("."):
                yield from _links_in(Path(entry.path), deepest - 1)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _token_files() -> list[Path]:
    """Where huggingface_hub keeps access tokens; as in its constants, which take long to import."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    token = Path(os.path.expanduser(os.environ.get("HF_TOKEN_PATH") or f"{home}/token")).resolve()  # noqa: PTH111
    return [token, token.with_name("stored_tokens")]


def _shown(given: object) -> str:
    text = str(given)
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def is_plain(name: str) -> bool:
    """Whether a repository's file name stays below the folder it is put in, on any system."""
    return not any(bad in name for bad in "\\:\0") and all(part not in ("", ".", "..") for part in name.split("/"))
