"""A server for the endpoint: on a port of the loopback address, in a thread or until the process is told to end."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from pathlib import Path

import uvicorn

from core.chat.client import ChatClient
from core.chat.voices import Voice
from core.errors import NibbleError
from core.listening import go_on_listening
from core.serve.endpoint import Endpoint
from core.serve.models import Served, name_of
from core.workspace import Workspace

FIRST_PORT, TRIES = 8000, 100
KEY_VARIABLE = "NIBBLE_API_KEY"
FEWEST_LETTERS = 16


class EndpointServer:
    """The endpoint on a port. `url` and `key` are what a client needs."""

    def __init__(self, client: ChatClient, workspace: Workspace, voice: Voice, key: str, port: int | None) -> None:
        """Takes the port at once. Raises NibbleError where it is taken."""
        self.key, self.model = key, name_of(voice)
        self.served = Served(workspace, voice)
        self._socket = _bound(port)
        own = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{own}/v1"
        go_on_listening()
        app = Endpoint(client, self.served, key, own).app
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until the process is told to end."""
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; replies under way are given a moment."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # requests that are cut off are no error
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(5)
        self._socket.close()


def _bound(port: int | None) -> socket.socket:
    """A listening place on loopback: the port asked for (0: any), else 8000 or the next that is free."""
    for each in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + TRIES):
        place = socket.socket()
        if os.name != "nt":  # there it would let two programs share a port
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(("127.0.0.1", each))
            place.listen()  # only then nobody else can have it
        except OSError:
            place.close()
            continue
        return place
    raise NibbleError(f"Port {port or FIRST_PORT} is taken by another program. Give another with --port.")


def new_key() -> str:
    """A random API key."""
    return f"nb-{secrets.token_urlsafe(32)}"


def given_key(file: str | None) -> str | None:
    """The key in `file`, else that of the environment; None where neither is given. Raises NibbleError."""
    if file is not None:
        try:
            key = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise NibbleError(f"The key file {file} cannot be read.") from None
    else:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key:
            return None
    if len(key) < FEWEST_LETTERS or not key.isascii() or any(letter.isspace() for letter in key):
        raise NibbleError(f"An API key has at least {FEWEST_LETTERS} plain letters or digits, and no spaces.")
    return key
