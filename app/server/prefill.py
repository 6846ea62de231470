"""What pages share is there when a page is drawn: no event must be answered before a run is seen."""

from collections.abc import Callable

from gradio.blocks import Blocks
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from app.server.event_validation import CheckedBlocks

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
