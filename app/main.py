"""serve(): the app on a port of this machine, until it is told to end. Training goes on without it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app import security
from app.opening import Instance, choose_port, show
from core.errors import NibbleError
from core.lock import locked
from core.runs.removing import clear_away
from core.workspace import ROOT, Workspace

if TYPE_CHECKING:
    from app.context import Context

HOUSE_SECONDS = 2.0
LARGEST_UPLOAD = "4gb"


@dataclass(frozen=True)
class Serving:
    """How to serve: on which port, to whom, behind which login."""

    port: int
    listen: bool
    share: bool
    auth: tuple[str, str] | None
    token: str | None

    @property
    def url(self) -> str:
        """The address to open on this machine."""
        return f"http://127.0.0.1:{self.port}/{f'?token={self.token}' if self.token else ''}"


def serve(
    workspace: Workspace,
    *,
    port: int | None = None,
    listen: bool = False,
    auth: str | None = None,
    browser: bool = True,
    window: bool = False,
    share: bool = False,
) -> int:
    """Serve the app on `workspace` until SIGINT or SIGTERM; open the one that serves it already, if one does.

    Returns the exit status. Raises NibbleError: port taken, a login missing or misspelt.
    """
    login = _login(auth, listen, share)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    instance = Instance(workspace)
    with locked(workspace.state / "server.lock"):
        url = instance.running()
        if url is not None:
            print(f"Nibble is running already: {url}", flush=True)
            if browser or window:
                show(url, window)
            return 0
        chosen = choose_port(port, "0.0.0.0" if listen else "127.0.0.1")
        token = None if login else security.workspace_token(workspace.state)
        serving = Serving(chosen, listen, share, login, token)
        stop = _launch(workspace, serving)
        instance.announce(serving.url)
    print(f"Nibble is ready: {serving.url}", flush=True)
    if browser or window:
        show(serving.url, window)
    ended.wait()
    print("Nibble ends. Runs that train go on.", file=sys.stderr)
    stop(ended)
    instance.leave()
    return 0


def _login(auth: str | None, listen: bool, share: bool) -> tuple[str, str] | None:
    user, colon, password = (auth or "").partition(":")
    if auth is not None and not (user and colon and password):
        raise NibbleError("--auth wants USER:PASS, both not empty.")
    if auth is None and (listen or share):
        flag = "--listen" if listen else "--share"
        raise NibbleError(f"{flag} lets others reach this app, so it needs a login: add --auth USER:PASS.")
    return (user, password) if auth is not None else None


def _launch(workspace: Workspace, serving: Serving) -> Any:
    """Start the server in threads of its own; returns what ends it."""
    uploads = tempfile.mkdtemp(prefix="nibble-uploads-")
    security.scrub_environment()
    os.environ["GRADIO_TEMP_DIR"] = uploads
    # Only now: gradio reads the environment when it is imported, and a second start needs none of it.
    from starlette.middleware import Middleware

    from app import theme
    from app.context import Context
    from app.export_shelf import Downloads
    from app.pages import build_page

    context = Context.open(workspace)
    demo = build_page(context)
    guard = Middleware(security.Guard, token=serving.token, port=serving.port, shared=serving.share)
    demo.queue(api_open=False).launch(
        server_name="0.0.0.0" if serving.listen else "127.0.0.1",
        server_port=serving.port,
        share=serving.share,
        auth=serving.auth,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        num_workers=0,
        root_path="",
        strict_cors=True,
        max_file_size=LARGEST_UPLOAD,
        blocked_paths=[str(ROOT), str(workspace.path)],
        app_kwargs={
            "middleware": [guard, Middleware(Downloads, shelf=context.shelf)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        favicon_path=theme.LOGO,
        pwa=True,
        theme=theme.theme(),
        css_paths=[theme.CSS],
        js=theme.SCRIPT,
    )
    finished = threading.Event()
    threading.Thread(target=_keep_house, args=(context, finished), daemon=True).start()

    def stop(ended: threading.Event) -> None:
        finished.set()
        context.arena.work.stop()
        context.talk.unload()
        context.helper.close()
        # Pages that are open are cut off, not waited for, and that is no error worth a traceback.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        demo.server.force_exit = True
        demo.close(verbose=False)
        shutil.rmtree(uploads, ignore_errors=True)

    return stop


def _keep_house(context: Context, finished: threading.Event) -> None:
    """What needs no page to be open: start the next queued run when the device is free, let an idle chat go."""
    with contextlib.suppress(OSError):
        clear_away(context.workspace)
    while not finished.wait(HOUSE_SECONDS):
        try:
            context.supervisor.advance()
            context.talk.rest()
        except Exception as error:  # a full disk, no memory for a process, a damaged file: it must not end for good
            print(f"The queue could not go on: {error}. It is tried again.", file=sys.stderr)
