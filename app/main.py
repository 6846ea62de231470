"""serve(): the app on a port of this machine, until it is told to end. Training goes on without it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from app.server import keys
from app.server.guard import Door
from app.server.instance import Instance, choose_port, show
from app.server.login import NAME, Login, generated_password
from app.server.uploads import Uploads
from core.errors import NibbleError
from core.runs.delete import clear_away
from core.system.addresses import Names, lan_address
from core.system.event_loop import go_on_listening
from core.system.file_lock import file_lock
from core.untrusted.paths import Reach
from core.workspace import ROOT, Workspace

if TYPE_CHECKING:
    import gradio as gr

    from app.context import Context
    from app.ui.tab import Tab

QUEUE_SECONDS = 2.0
LARGEST_UPLOAD = "4gb"


@dataclass(frozen=True)
class Serving:
    """How to serve: to whom, what of the disk they may use, and behind which door."""

    door: Door
    reach: Reach
    share: bool = False

    @property
    def url(self) -> str:
        """The address to open on this machine."""
        token = self.door.token
        return f"http://127.0.0.1:{self.door.names.port}/{f'?token={token}' if token else ''}"


@dataclass
class Server:
    """The app on its port, in threads of its own."""

    demo: gr.Blocks
    context: Context
    tabs: tuple[Tab, ...]
    uploads: Uploads
    ended: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """End it. Pages that are open are cut off, not waited for, and that is no error worth a traceback."""
        self.ended.set()
        for tab in self.tabs:
            tab.close()
        self.context.helper.close()
        self.context.feed.close()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.demo.server.force_exit = True
        self.demo.close(verbose=False)
        self.uploads.clear()


def serve(
    workspace: Workspace,
    *,
    port: int | None = None,
    listen: bool = False,
    auth: str | None = None,
    browser: bool = True,
    window: bool = False,
    share: bool = False,
    allowed: Sequence[str] = (),
) -> int:
    """Serve the app on `workspace` until SIGINT or SIGTERM; open the one that serves it already, if one does.

    `allowed` are folders that may be used also where others reach the app. Returns the exit status.
    Raises NibbleError: port taken, a login misspelt, a folder that is none.
    """
    name, password = name_and_password(auth, listen or share)
    reach = Reach.of(workspace, listen or share, allowed)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    instance = Instance(workspace)
    with file_lock(workspace.state / "server.lock"):
        url = instance.running()
        if url is not None:
            print(f"Nibble is already running: {url}", flush=True)
            if browser or window:
                show(url, window)
            return 0
        names = Names(choose_port(port, "0.0.0.0" if listen else "127.0.0.1"), listen)
        login = Login(name, password) if password else None
        token = None if login else keys.workspace_token(workspace.state)
        serving = Serving(Door(names, token, login), reach, share)
        server = launch(workspace, serving)
        instance.announce(serving.url)
    print(f"Nibble is ready: {serving.url}", flush=True)
    tell_others(names, share, "" if auth else password)
    if browser or window:
        show(serving.url, window)
    while not ended.wait(0.5):  # without a limit Windows would let no Ctrl+C through
        pass
    print("Nibble has stopped. Running training continues.", file=sys.stderr)
    server.stop()
    instance.leave()
    return 0


def name_and_password(auth: str | None, others: bool) -> tuple[str, str]:
    """Name and password: those of --auth, else made up where others reach the app, else none ('')."""
    if auth is None:
        return NAME, generated_password() if others else ""
    user, _, password = auth.partition(":")
    if not (user.strip() and password):
        raise NibbleError("--auth needs USER:PASS, neither of them empty.")
    return user, password


def tell_others(names: Names, share: bool, generated: str) -> None:
    """What the person needs to let others in. A password that was made up is said here and nowhere else."""
    if names.listen and (address := lan_address()):
        print(f"On your network:  http://{address}:{names.port}/", flush=True)
    if share and names.tunnel:
        print(f"Public link:      https://{names.tunnel}/", flush=True)
    elif share:
        print(
            "No public link: Gradio's service did not provide one. Nibble is reachable on this machine only.",
            file=sys.stderr,
        )
    if generated:
        print(f"Sign in as:       {NAME}, with the password {generated} (new at every start)", flush=True)


def launch(workspace: Workspace, serving: Serving) -> Server:
    """Start the server in threads of its own. Until it is up, its door stands open for its own question only."""
    keys.scrub_environment()
    uploads = Uploads()
    os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = str(uploads.files)
    with keys.reaching_ourselves(serving.share), contextlib.redirect_stdout(sys.stderr):
        server = _start(workspace, serving, uploads)
    serving.door.names.tunnel = urlsplit(server.demo.share_url or "").netloc.lower() or None
    serving.door.starting = False
    threading.Thread(target=_keep_going, args=(server,), daemon=True).start()
    return server


def _start(workspace: Workspace, serving: Serving, uploads: Uploads) -> Server:
    """Gradio's launch, everything that it could take from the environment given."""
    go_on_listening()
    # Only now: gradio reads the environment when it is imported, and a second start needs none of it.
    from app.context import Context
    from app.page.build import build_page, open_tabs
    from app.server.asgi import gradio_server
    from app.server.load_limits import MOST_SESSIONS, MOST_WAITING, calm
    from app.ui import theme

    context = Context.open(workspace, serving.reach)
    tabs = open_tabs(context)
    demo = build_page(context, tabs).queue(api_open=False, max_size=MOST_WAITING)
    calm(demo._queue)
    names = serving.door.names
    demo.launch(
        _app=gradio_server(context.shared_files, context.feed, serving.door),
        server_name="0.0.0.0" if names.listen else "127.0.0.1",
        server_port=names.port,
        share=serving.share,
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
        state_session_capacity=MOST_SESSIONS,
        blocked_paths=[str(ROOT), str(workspace.path)],
        favicon_path=theme.LOGO,
        pwa=False,
        theme=theme.theme(),
        css_paths=[theme.CSS],
        js=theme.SCRIPT,
    )
    demo.share = False  # else Gradio's page for links would fetch its scripts from another site
    return Server(demo, context, tabs, uploads)


def _keep_going(server: Server) -> None:
    """What needs no page to be open: start the next queued run when the device is free, let an idle model go."""
    with contextlib.suppress(OSError):
        clear_away(server.context.workspace)
    while not server.ended.wait(QUEUE_SECONDS):
        try:
            server.context.supervisor.advance()
            for tab in server.tabs:
                tab.rest()
        except Exception as error:  # a full disk, no memory for a process, a damaged file: it must not end for good
            print(f"The queue could not continue: {error}. Trying again.", file=sys.stderr)
