"""Serves the endpoint on a port of this machine, in a thread or until the process is told to end."""

import errno
import ipaddress
import logging
import os
import re
import secrets
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

import uvicorn

from core.chat.client import ChatClient
from core.errors import NibbleError
from core.runs.chat_models import ChatModel
from core.serve.endpoint import Endpoint, Served, name_of
from core.system.addresses import CONTAINER_HOSTS, Names, lan_address
from core.system.event_loop import go_on_listening
from core.workspace import Workspace

LOCAL, FIRST_PORT, TRIES = "127.0.0.1", 8000, 100
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
KEY_VARIABLE = "NIBBLE_API_KEY"
FEWEST_LETTERS = 16


class EndpointServer:
    """The endpoint on a port. `url` and `key` are what a client needs."""

    def __init__(
        self,
        client: ChatClient,
        workspace: Workspace,
        chat_model: ChatModel,
        key: str,
        port: int | None,
        address: str = LOCAL,
        also: Iterable[str] = (),
    ) -> None:
        """Takes the port at once. `address`: where to listen; `also`: more host names to answer to.

        Raises NibbleError where the port is taken, or the address or a name is invalid.
        """
        self.key, self.model = key, name_of(chat_model)
        self.served = Served(workspace, chat_model)
        admitted = {_name(each) for each in also}
        self._socket = _bound(port, _address(address))
        own = int(self._socket.getsockname()[1])
        listens_on_all = ipaddress.ip_address(address).is_unspecified
        self.url = f"http://{(lan_address() or LOCAL) if listens_on_all else address}:{own}/v1"
        go_on_listening()
        names = Names(own, listen=address != LOCAL, also=CONTAINER_HOSTS, admitted=admitted)
        app = Endpoint(client, self.served, key, names).app
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until the process is told to end."""
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; current replies are given a moment."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # requests that are cut off are no error
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(5)
        self._socket.close()


def _address(given: str) -> str:
    """An IPv4 address. Raises NibbleError."""
    try:
        return str(ipaddress.IPv4Address(given))
    except ValueError:
        raise NibbleError(
            f"--address: {given[:60]!r} is not an IPv4 address such as 127.0.0.1 or 172.17.0.1."
        ) from None


def _name(given: str) -> str:
    """A name for Host headers. Raises NibbleError."""
    name = given.strip().lower().rstrip(".")
    if not _NAME.fullmatch(name):
        raise NibbleError(
            f"--allow-host: {given[:60]!r} is not a host name. Give it without http:// and without a port."
        )
    return name


def _bound(port: int | None, address: str) -> socket.socket:
    """A listening socket at `address`: on `port` (0: any), or by default on 8000 or the next free one."""
    for each in [port] if port is not None else range(FIRST_PORT, FIRST_PORT + TRIES):
        place = socket.socket()
        if os.name != "nt":  # there it would let two programs share a port
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((address, each))
            place.listen()  # only then nobody else can have it
        except OSError as error:
            place.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise NibbleError(f"--address: {address} is not an address of this machine.") from None
            continue
        return place
    raise NibbleError(f"Port {port or FIRST_PORT} is in use by another program. Choose another with --port.")


def new_key() -> str:
    """A random API key."""
    return f"nb-{secrets.token_urlsafe(32)}"


def given_key(file: str | None) -> str | None:
    """The API key in `file`, else in the environment, else None. Raises NibbleError."""
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
        raise NibbleError(f"An API key must have at least {FEWEST_LETTERS} ASCII letters or digits, and no spaces.")
    return key
