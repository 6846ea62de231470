"""Gradio's server with our guard in front of all of it, also of the middleware that Gradio adds by itself."""

from collections.abc import Callable
from typing import Any

from gradio.blocks import Blocks
from gradio.routes import App, ORJSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.server.downloads import Downloads, SharedFiles
from app.server.event_validation import CheckedBlocks
from app.server.feed import Broadcast, Feed
from app.server.guard import Door, Guard
from app.server.load_limits import LoadLimits
from app.server.request_body import Intake

# What a page asks for its components' properties. It carries them too, in a script that our policy keeps from running.
CONFIG = "/config"


class Prefilled:
    """ASGI middleware behind the guard: what is shown to all is brought up to date before a page draws it."""

    def __init__(self, app: ASGIApp, blocks: Callable[[], Blocks]) -> None:
        self.app, self.blocks = app, blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, after the components that it asks for."""
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == CONFIG:
            blocks = self.blocks()
            if isinstance(blocks, CheckedBlocks):
                await run_in_threadpool(fill, blocks)
        return await self.app(scope, receive, send)


def fill(blocks: CheckedBlocks) -> None:
    """Write what `blocks` shows now into the properties that its pages are made of."""
    try:
        now = blocks.in_sight()
    except Exception:  # a damaged file, a full disk: the page comes without, and the feed tries again and says why
        return
    for component in blocks.config["components"]:
        if component["id"] in now:
            component["props"] |= now[component["id"]]


class GradioServer(App):
    """What launch() serves. Gradio puts its own middleware before any that it is given, so the guard goes around."""

    door: Door
    feed: Feed

    def build_middleware_stack(self) -> ASGIApp:
        """All of it, behind the guard."""
        inside = Broadcast(Prefilled(super().build_middleware_stack(), self.get_blocks), self.feed)
        return Guard(LoadLimits(inside, lambda: len(self.get_blocks()._queue)), self.door)


def gradio_server(shared_files: SharedFiles, feed: Feed, door: Door) -> GradioServer:
    """The server behind `door`, with our own routes; Gradio's are added by launch()."""
    ours: list[Any] = [Middleware(Downloads, shared_files=shared_files), Middleware(Intake)]
    kinds: dict[str, Any] = {"default_response_class": ORJSONResponse}  # as Gradio has it where it makes the server
    built = GradioServer(middleware=ours, docs_url=None, redoc_url=None, openapi_url=None, **kinds)
    built.door, built.feed = door, feed
    return built
