"""Where the app is: its port, whether it runs already on this workspace, and opening it for the person."""

import os
import shutil
import socket
import subprocess
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from app.server.keys import ticket
from core.errors import NibbleError
from core.system.process import is_alive, process_started
from core.workspace import Workspace, read_json, write_json

FIRST_PORT, TRIES = 7860, 100
BROWSERS = ("google-chrome", "chromium", "chromium-browser", "microsoft-edge", "chrome", "msedge")
MAC_BROWSERS = ("Google Chrome", "Chromium", "Microsoft Edge")
WINDOWS_FOLDERS = (r"Google\Chrome\Application\chrome.exe", r"Microsoft\Edge\Application\msedge.exe")


def choose_port(wanted: int | None, host: str = "127.0.0.1") -> int:
    """The port to serve on: the one that was asked for (0: any), else 7860 or the next free one.

    Raises NibbleError where the port that was asked for is taken.
    """
    if wanted == 0:
        with socket.socket() as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    if wanted is not None:
        if not _is_free(wanted, host):
            raise NibbleError(
                f"Port {wanted} is in use by another program. Choose another with --port, or leave it out."
            )
        return wanted
    for port in range(FIRST_PORT, FIRST_PORT + TRIES):
        if _is_free(port, host):
            return port
    raise NibbleError(f"No port from {FIRST_PORT} to {FIRST_PORT + TRIES - 1} is free. Choose one with --port.")


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # there it would let two programs share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


@dataclass(frozen=True)
class Instance:
    """The app that serves a workspace, as `state/server.json` knows it."""

    workspace: Workspace

    @property
    def _file(self) -> Path:
        return self.workspace.state / "server.json"

    def running(self) -> str | None:
        """The address of the app that runs on this workspace, None where none does."""
        known = read_json(self._file)
        if not isinstance(known, dict) or not is_alive(known.get("pid"), known.get("started")):
            return None
        return str(known["url"])

    def announce(self, url: str) -> None:
        """Say that this process serves the workspace, at `url`."""
        write_json(self._file, {"pid": os.getpid(), "started": process_started(os.getpid()), "url": url})
        self._file.chmod(0o600)

    def leave(self) -> None:
        """Say that nobody serves it any more."""
        self._file.unlink(missing_ok=True)


def show(url: str, window: bool) -> None:
    """Open `url`: in a window of its own where a Chromium is at hand and `window` asks for it, else in the browser."""
    bare, has_token, token = url.partition("?token=")
    opened = f"{bare}{has_token}{ticket(token)}" if has_token else url
    program = find_browser() if window else None
    if program is None:
        webbrowser.open(opened)
        return
    subprocess.Popen(
        [program, f"--app={opened}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def find_browser() -> str | None:
    """A Chrome, Chromium or Edge on this machine, None where there is none."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    candidates = [Path(f"/Applications/{name}.app/Contents/MacOS/{name}") for name in MAC_BROWSERS]
    for root in (r"C:\Program Files", r"C:\Program Files (x86)"):
        candidates += [Path(root) / folder for folder in WINDOWS_FOLDERS]
    return next((str(path) for path in candidates if path.is_file()), None)
