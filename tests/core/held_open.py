"""As on Windows: a file that something else holds open for a moment."""

from __future__ import annotations

from types import SimpleNamespace

WINDOWS = SimpleNamespace(platform="win32")


class Scanner:
    """Keeps a file open for the first few tries."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def look(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise PermissionError(13, "in use")
        return "done"
