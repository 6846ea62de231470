"""Where uploaded files and files to take away lie: a folder of this server's own, gone with it, or at the next start.

Gradio keeps what is uploaded in GRADIO_TEMP_DIR and sends files from there, and from nowhere else of the disk. A
server holds a lock in its folder for as long as it lives, so that the next one knows what a killed one has left.
"""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from core.system.file_lock import file_lock, try_lock

PREFIX, OWNER = "nibble-uploads-", "owner.lock"
# Between the making of a folder and the taking of its lock.
BEING_MADE_SECONDS = 60.0


class Uploads:
    """One server's folder: `files` is for Gradio. No other user may look into it."""

    def __init__(self) -> None:
        """Make it, and take away what servers that were killed have left. Raises OSError where there is no room."""
        clear_left()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = file_lock(self._folder / OWNER)
        self._lock.acquire()
        self.files = self._folder / "files"
        self.files.mkdir(mode=0o700)

    def clear(self) -> None:
        """Take all of it away."""
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)


def clear_left() -> None:
    """Take away the folders whose server is gone without having done it. Another user's are left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    try:
        found = folder.lstat()
        own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if not stat.S_ISDIR(found.st_mode) or not own:
            return False
        if not (folder / OWNER).is_file():
            return time.time() - found.st_mtime > BEING_MADE_SECONDS
        lock = try_lock(folder / OWNER)
        if lock is None:
            return False
        lock.release()
    except OSError:
        return False
    return True


def folder_to_send() -> Path:
    """A new folder for one file that the page hands out."""
    files = _files()
    files.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=files))


def forget(paths: list[str]) -> None:
    """Take away uploaded files that have been copied to where they stay: they may be large."""
    uploads = _files().resolve()
    for file in (Path(path).resolve() for path in paths):
        if file.is_relative_to(uploads) and file.is_file():
            with contextlib.suppress(PermissionError):  # on Windows while it is looked at; it goes with the others
                file.unlink(missing_ok=True)


def _files() -> Path:
    from gradio.utils import get_upload_folder  # not before the environment is scrubbed

    return Path(get_upload_folder())
