"""The upload of an export to the Hugging Face Hub: shown first, then done in a thread of the server."""

from app.ui import html
from app.ui.background_job import BackgroundJob
from app.ui.html import text
from core.export.push_to_hub import Upload, push
from core.sizes import show_bytes

SHOWN_FILES = 40


class UploadSession(BackgroundJob):
    """At most one upload at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._upload: Upload | None = None

    def plan(self, upload: Upload) -> None:
        """Show what would be uploaded, and remember it for the press that does it."""
        self._offer(upload, _files(upload))

    def refuse(self, message: str) -> None:
        """Say what is wrong; there is nothing to upload then."""
        self._offer(None, html.error_box(message))

    def _offer(self, upload: Upload | None, shown: str) -> None:
        with self._lock:
            if not self.busy:
                self._upload, self.error, self.result = upload, "", shown

    def press(self) -> None:
        """Upload what was shown."""
        with self._lock:
            upload, self._upload = self._upload, None
            if upload is not None and not self.busy:
                self.start(lambda stopping: self._send(upload), f"Uploading {upload.heading}…")

    @property
    def ready(self) -> bool:
        """Whether something was shown that can be uploaded."""
        return self._upload is not None and not self.busy

    def _send(self, upload: Upload) -> None:
        address = push(upload)
        link = f'<a href="{text(address)}" target="_blank" rel="noreferrer">{text(address)}</a>'
        self.result = f'<div class="nb-box nb-note" role="status"><span>Uploaded: {link}</span></div>'


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
