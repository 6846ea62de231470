"""The upload of an export to the Hugging Face Hub: shown first, then done in a thread of the server."""

from __future__ import annotations

import threading

from app import pieces
from app.pieces import text
from core.errors import NibbleError
from core.export.push import Upload, push
from core.sizes import show_bytes

SHOWN_FILES = 40


class PushDesk:
    """At most one upload at a time: it goes on when the page is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._upload: Upload | None = None
        self._shown = ""
        self.busy = False

    def plan(self, upload: Upload) -> None:
        """Show what would be uploaded, and remember it for the press that does it."""
        with self._lock:
            if not self.busy:
                self._upload, self._shown = upload, _files(upload)

    def refuse(self, message: str) -> None:
        """Say what is wrong; there is nothing to upload then."""
        with self._lock:
            if not self.busy:
                self._upload, self._shown = None, pieces.error_box(message)

    def press(self) -> None:
        """Upload what was shown."""
        with self._lock:
            if self._upload is None or self.busy:
                return
            self.busy = True
            self._shown = pieces.busy(f"Uploading {self._upload.heading}…")
            threading.Thread(target=self._work, args=(self._upload,), daemon=True).start()

    def _work(self, upload: Upload) -> None:
        try:
            address = push(upload)
            link = f'<a href="{text(address)}" target="_blank" rel="noreferrer">{text(address)}</a>'
            self._end(f'<div class="nb-box nb-note" role="status"><span>Uploaded: {link}</span></div>')
        except NibbleError as error:
            self._end(pieces.error_box(str(error)))
        except Exception as error:  # a thread has nobody above it who would tell the person
            self._end(pieces.fault_box(error))
            raise

    def _end(self, html: str) -> None:
        with self._lock:
            self._shown, self.busy, self._upload = html, False, None

    @property
    def ready(self) -> bool:
        """Whether something was shown that can be uploaded."""
        return self._upload is not None and not self.busy

    def html(self) -> str:
        """How it stands."""
        return self._shown


def _files(upload: Upload) -> str:
    rows = "".join(
        f"<tr><td>{text(name)}</td><td class='nb-right'>{show_bytes(size)}</td></tr>"
        for name, size in upload.files[:SHOWN_FILES]
    )
    more = len(upload.files) - SHOWN_FILES
    rest = f"<p class='nb-muted'>And {more} more.</p>" if more > 0 else ""
    return (
        f"<p>This would be uploaded: {text(upload.heading)}.</p>"
        f"<table class='nb-table'><tbody>{rows}</tbody></table>{rest}"
    )
