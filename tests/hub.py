"""A stand-in for the Hugging Face Hub on this machine: models and datasets from folders, as well or badly as told."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import uploads
from tests.uploads import Uploads

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 20_000
LET_IN = "hf_stand_in_let_in"
_PIECE = 8192


@dataclass
class Asked:
    """One request that came in, and how many bytes of a body go back: counted before they do, so never too late."""

    method: str
    path: str
    range: str | None
    authorised: bool
    sent: int


@dataclass
class Hub:
    """What is served and how. `repos`: id to folder, a dataset's id with `datasets/` before it.

    What comes from the storage of large files can be made slow, broken off after so many bytes, damaged, or refused:
    `faults`, `breaks` and `damages` are used up, one a request.
    """

    repos: dict[str, Path]
    gated: tuple[str, ...] = ()
    url: str = ""
    bytes_per_second: float | None = None
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    damages: int = 0
    asked: list[Asked] = field(default_factory=list)
    uploads: Uploads = field(default_factory=Uploads)

    def sent(self, ending: str) -> list[int]:
        """The bytes sent for each request of a file whose name ends so, in order."""
        return [each.sent for each in self.asked if each.path.endswith(ending) and each.sent]


@contextmanager
def stand_in_hub(repos: dict[str, Path], gated: tuple[str, ...] = ()) -> Iterator[Hub]:
    """Serve `repos` until the block ends; the Hub's `url` is for HF_ENDPOINT."""
    hub = Hub(repos, gated)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process know no other Hub, an empty `cache`, no token, and short pauses after faults."""
    from huggingface_hub import constants

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    values = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
    values |= {"HF_HUB_CACHE": str(cache), "HF_TOKEN_PATH": str(cache / "no-token")}
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("core.basemodel.fetch.PAUSES", (0.1, 0.1, 0.1))
    monkeypatch.delenv("HF_TOKEN", raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, posted: bytes) -> None:
        address, _, query = self.path.partition("?")
        path = urllib.parse.unquote(address)
        about_upload = uploads.answer(self.hub.uploads, self.hub.url, self.command, path, posted)
        if about_upload is not None:
            status, told = about_upload
            return self._send(status, json.dumps(told).encode(), {"Content-Type": "application/json"})
        is_api = path.startswith("/api/")
        plain = path.removeprefix("/storage").removeprefix("/api").removeprefix("/models").removeprefix("/")
        known = sorted((*self.hub.repos, *self.hub.gated), key=len, reverse=True)
        name = next((name for name in known if f"{plain}/".startswith(f"{name}/")), None)
        if name is None:
            return self._refuse(401, "RepoNotFound")
        is_open = name in self.hub.repos and (is_api or path.startswith("/storage/"))
        if name in self.hub.gated and not is_open:
            token = self.headers.get("Authorization")
            if token != f"Bearer {LET_IN}":
                return self._refuse(403 if token else 401, "GatedRepo")
        folder = self.hub.repos[name]
        if is_api:
            return self._describe(path, name, folder, posted, query.lower())
        file = folder / plain.partition("/resolve/")[2].partition("/")[2]
        if not file.is_file():
            return self._refuse(404, "EntryNotFound")
        if path.startswith("/storage/"):
            return self._file(file, _sha256(file), from_storage=True)
        if _is_large(file):
            return self._redirect(file, path)
        return self._file(file, _git_sha1(file), from_storage=False)

    def _describe(self, path: str, name: str, folder: Path, posted: bytes, query: str) -> None:
        below = path.partition("/tree/")[2].partition("/")[2]
        if not (folder / below).exists():
            return self._refuse(404, "EntryNotFound")
        about = _about(path, name, folder, posted, "recursive=true" in query)
        return self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _redirect(self, file: Path, path: str) -> None:
        """A large file lies elsewhere: at another host, where a token has no business."""
        if self.command == "GET" and self.hub.faults:
            status, headers = self.hub.faults.pop(0)
            return self._send(status, b"", headers)
        port = urllib.parse.urlsplit(self.hub.url).port
        headers = {"Location": f"http://localhost:{port}/storage{path}?signature=secret", "X-Repo-Commit": COMMIT}
        headers |= {"X-Linked-Etag": f'"{_sha256(file)}"', "X-Linked-Size": str(file.stat().st_size)}
        return self._send(302, b"", headers)

    def _file(self, file: Path, etag: str, from_storage: bool) -> None:
        whole = file.read_bytes()
        if from_storage and self.command == "GET" and self.hub.damages:
            self.hub.damages -= 1
            whole = whole[:-1] + bytes([whole[-1] ^ 255])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if not wanted:
            return self._send(200, whole, headers, from_storage)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last) + 1 if last else len(whole), len(whole))
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(whole)}"
        return self._send(206, whole[int(first) : end], headers, from_storage)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str], from_storage: bool = False) -> None:
        path, authorised = self.path.partition("?")[0], "Authorization" in self.headers
        asked = Asked(self.command, path, self.headers.get("Range"), authorised, 0)
        self.hub.asked.append(asked)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._body(body, asked, from_storage)

    def _body(self, body: bytes, asked: Asked, from_storage: bool) -> None:
        """Send `body`: a large file's at the Hub's speed, and up to where it breaks off."""
        until = self.hub.breaks.pop(0) if from_storage and self.hub.breaks else len(body)
        try:
            for start in range(0, min(until, len(body)), _PIECE):
                piece = body[start : min(start + _PIECE, until)]
                asked.sent += len(piece)
                self.wfile.write(piece)
                if from_storage and self.hub.bytes_per_second:
                    time.sleep(len(piece) / self.hub.bytes_per_second)
        except OSError:  # who asked has gone
            self.close_connection = True
        if asked.sent < len(body):
            self.close_connection = True


def _is_large(file: Path) -> bool:
    return file.suffix == ".safetensors" or file.stat().st_size > LARGE_BYTES


def _about(path: str, name: str, folder: Path, posted: bytes, deep: bool) -> Any:
    """What the Hub's interface says of a repository: itself, the files below a path, or the paths asked for."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    if "/tree/" in path:
        top = folder / path.partition("/tree/")[2].partition("/")[2]
        below = sorted(top.rglob("*") if deep else top.iterdir())
        return [_entry(each.relative_to(folder).as_posix(), each) for each in below]
    if "/paths-info/" in path:
        asked = urllib.parse.parse_qs(posted.decode()).get("paths") or json.loads(posted)["paths"]
        return [_entry(name, folder / name) for name in asked if (folder / name).exists()]
    siblings = [_sibling(name, file) for name, file in files.items()]
    known = {"id": name.removeprefix("datasets/"), "sha": COMMIT, "private": False, "gated": False, "tags": []}
    counted = sum(_numbers(file) for name, file in files.items() if name.endswith(".safetensors"))
    return {**known, "siblings": siblings, **({"safetensors": {"parameters": {}, "total": counted}} if counted else {})}


def _numbers(file: Path) -> int:
    """How many numbers the header of a safetensors file names; none where it has no header."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if length > len(content):
        return 0
    entries = json.loads(content[8 : 8 + length])
    return sum(math.prod(entry["shape"]) for name, entry in entries.items() if name != "__metadata__")


def _sibling(name: str, file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    about: dict[str, Any] = {"rfilename": name, "size": size, "blobId": _git_sha1(file)}
    if _is_large(file):
        about["lfs"] = {"size": size, "sha256": _sha256(file), "pointerSize": 134}
    return about


def _entry(name: str, file: Path) -> dict[str, Any]:
    if file.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "size": file.stat().st_size, "oid": _git_sha1(file)}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _git_sha1(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
