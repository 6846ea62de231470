"""Finished exports that a browser may fetch: each under an id that nobody can guess, and nothing else of the disk.

Gradio's own way to hand out files would copy them first, and may not see the workspace at all (app/main.py).
"""

import secrets
import threading
from pathlib import Path
from urllib.parse import quote

from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/export-download/"
GONE = "This download no longer exists. Open the Export tab again."


class SharedFiles:
    """Files by their ids, for as long as the server runs. The same file keeps its id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[Path, str] = {}

    def address(self, file: Path) -> str:
        """Where a browser fetches `file`: a path of this server."""
        with self._lock:
            name = self._ids.setdefault(file.resolve(), secrets.token_urlsafe(24))
        return f"{PREFIX}{name}/{quote(file.name)}"

    def file(self, path: str) -> Path | None:
        """The file at a path of this server; None where there is none, or it has gone."""
        wanted = path.removeprefix(PREFIX).partition("/")[0].encode()
        with self._lock:
            found = next(
                (file for file, name in self._ids.items() if secrets.compare_digest(name.encode(), wanted)), None
            )
        return found if found is not None and found.is_file() else None


class Downloads:
    """ASGI middleware behind the guard: answers the addresses of shared files, and hands on everything else."""

    def __init__(self, app: ASGIApp, shared_files: SharedFiles) -> None:
        self.app, self.shared_files = app, shared_files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file as an attachment, in pieces, or say that it has gone."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            return await self.app(scope, receive, send)
        file = self.shared_files.file(scope["path"])
        answer: Response = PlainTextResponse(GONE, 404)
        if file is not None and scope["method"] in ("GET", "HEAD"):
            answer = FileResponse(file, media_type="application/octet-stream", filename=file.name)
        return await answer(scope, receive, send)
