"""Where a dataset's files are: the file itself, the files of a folder, the members of a .zip."""

import stat
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from core.data.read.blob import LARGEST_RATIO, RATIO_MATTERS_FROM, Blob, gzipped, plain, zip_member
from core.data.read.folders import files_below
from core.data.read.kinds import HEAD, KNOWN, NoDataset, kind_of, packing_of, refuse_office, suffix_of
from core.data.read.letters import guess
from core.data.read.notes import Notes
from core.errors import DataError
from core.untrusted.archives import ArchiveError, ArchiveLimits, check_amount

# Nothing of a .zip is unpacked to the disk, but its rows are read: so it may be large, but no bomb.
_LIMITS = ArchiveLimits(entries=100_000, bytes=10**13, ratio=LARGEST_RATIO, free_bytes=RATIO_MATTERS_FROM)
# What stands beside data, and is none: notes about it, and what `datasets` writes when it saves a dataset.
_BESIDE = {"readme", "license", "licence", "copying", "changelog", "notice", "citation"}
_BESIDE_NAMES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_ENCRYPTED, _NAMED_IN_UTF8 = 0x1, 0x800  # flags of a member
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


def find_blobs(path: Path, name: str, notes: Notes) -> list[Blob]:
    """The files to read, in name order; what is left out of a folder or a .zip is noted. Raises DataError for none."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            return _in_folder(path, name, notes)
        if not stat.S_ISREG(kind):
            raise NoDataset(f"{name} is a device or a pipe, not a file. Use {KNOWN}.")
        return _in_file(path, name, notes)
    except FileNotFoundError:
        raise DataError(f"There is no file {name}. Check the path, or upload it again.") from None
    except PermissionError:
        raise DataError(f"{name} is not readable by this user. Change its permissions, or copy it.") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}. Check the path.") from None


def _in_file(path: Path, name: str, notes: Notes) -> list[Blob]:
    if path.stat().st_size == 0:
        raise NoDataset(f"{name} is empty. It should have one conversation per row.")
    packing = packing_of(name, plain(path, name).head(HEAD))
    if packing == "zip":
        return _in_zip(path, name, notes)
    return [gzipped(path, name) if packing == "gz" else plain(path, name)]


def _in_folder(path: Path, name: str, notes: Notes) -> list[Blob]:
    found, folders = files_below(path)
    files: dict[str, Callable[[], list[Blob]]] = {
        each: partial(find_blobs, file, each, notes) for each, file in found.items()
    }
    if "config.json" in files and any(suffix_of(file) == ".safetensors" for file in files):
        raise DataError(f"{name} is a model folder, not a dataset. Choose it as the base model.")
    blobs = _chosen(files, folders, name, notes)
    if not blobs and folders:
        raise DataError(f"{name} contains no data files, only folders: {', '.join(folders[:12])}. Use one of them.")
    if not blobs:
        raise DataError(f"{name} is a folder without data files. Supported files: {KNOWN}.")
    return blobs


def _in_zip(path: Path, name: str, notes: Notes) -> list[Blob]:
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
        check_amount(listed, path.stat().st_size, _LIMITS)
        files = [each for each in listed if each.filename and not each.filename.endswith("/")]
        members = [each for each in files if not stat.S_ISLNK(each.external_attr >> 16)]
    except ArchiveError as error:
        raise DataError(f"{name}: {error}") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{name} is not a complete .zip ({error}). Download or pack it again.") from None
    refuse_office(name, [member.filename for member in members])
    visible = sorted((each for each in members if not _is_hidden(each.filename)), key=lambda each: each.filename)
    blobs = _chosen({_name_of(each): partial(_member, path, name, each) for each in visible}, [], name, notes)
    if not blobs:
        raise DataError(f"{name} contains no data files. Supported files: {KNOWN}.")
    return blobs


def _is_hidden(name: str) -> bool:
    return any(part != ".." and part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _name_of(member: zipfile.ZipInfo) -> str:
    """A member's name; one that is not marked as UTF-8 may be in the encoding of the computer that packed it."""
    if member.flag_bits & _NAMED_IN_UTF8 or member.filename.isascii():
        return member.filename
    raw = member.filename.encode("cp437", "replace")
    guessed = guess(raw)
    return raw.decode(guessed.codec if guessed else "utf-8", "replace")


def _member(path: Path, name: str, member: zipfile.ZipInfo) -> list[Blob]:
    full_name = f"{name}/{_name_of(member)}"
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{name} is protected by a password. Unpack it yourself and use the files inside.")
    if member.compress_type not in _METHODS:
        raise DataError(f"{name} uses an unsupported compression. Pack it again as an ordinary .zip.")
    if not member.file_size:
        raise NoDataset(f"{full_name} is empty. It should have one conversation per row.")
    if suffix_of(member.filename) == ".zip":
        raise DataError(f"{full_name} is a .zip inside a .zip. Unpack it first.")
    return [zip_member(path, full_name, member)]


def _chosen(files: dict[str, Callable[[], list[Blob]]], folders: list[str], name: str, notes: Notes) -> list[Blob]:
    """What can be read of several files. Those that are no data are left out and noted; alone, they are refused.

    Raises DataError for one that is data but damaged: it would be missed.
    """
    found: list[Blob] = []
    reasons: dict[str, str] = dict.fromkeys(folders, "")
    for each, find in files.items():
        if _is_beside(each, alone=len(files) + len(folders) == 1):
            reasons[each] = ""
            continue
        try:
            blobs = find()
            for blob in blobs:
                kind_of(blob.name, blob.inner, blob.head(HEAD))
            found += blobs
        except NoDataset as error:
            reasons[each] = str(error)
    why = next(filter(None, reasons.values()), "")
    if why and not found:
        raise DataError(why if why.startswith(name) else f"{name}: {why}")
    if reasons and found:
        notes.on_opening(
            "file-left-out",
            "warning" if why else "note",
            f"Of {name}, not read: {', '.join(list(reasons)[:12])}. {why}".rstrip(),
            "Nothing to do if they contain no conversations.",
        )
    return found


def _is_beside(name: str, alone: bool) -> bool:
    last = PurePosixPath(name).name.lower()
    return last in _BESIDE_NAMES or (last.split(".")[0] in _BESIDE and not alone)
