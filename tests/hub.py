"""A stand-in for the Hugging Face Hub on this machine: serves folders, refuses what is gated or unknown."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def stand_in_hub(repos: dict[str, Path], gated: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve `repos` (id to folder) until the block ends; yields the address for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, send_body: bool) -> None:
            path = self.path.partition("?")[0]
            name = next((name for name in (*repos, *gated) if f"/{name}" in path), None)
            if name in gated:
                return self._refuse(403, "GatedRepo", "Access to this model is restricted.")
            if name is None:
                return self._refuse(401, "RepoNotFound", "Repository Not Found")
            folder = repos[name]
            if path.startswith("/api/models/"):
                return self._send(self._about(path, name, folder), send_body, "application/json")
            file = folder / path.partition("/resolve/")[2].partition("/")[2]
            if not file.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not found")
            return self._send(file.read_bytes(), send_body, "application/octet-stream")

        def _about(self, path: str, name: str, folder: Path) -> bytes:
            files = [file for file in sorted(folder.iterdir()) if file.is_file()]
            if "/tree/" in path:
                entries = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file.read_bytes())}
                    for file in files
                ]
                return json.dumps(entries).encode()
            siblings = [{"rfilename": file.name} for file in files]
            return json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode()

        def _send(self, body: bytes, send_body: bool, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{_digest(body)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if send_body:
                self.wfile.write(body)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def _digest(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()
