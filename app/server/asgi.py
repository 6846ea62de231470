"""Gradio's server with our guard in front of all of it, also of the middleware that Gradio adds by itself."""

from typing import Any

from gradio.routes import App, ORJSONResponse
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from app.server.downloads import Downloads, SharedFiles
from app.server.feed import Broadcast, Feed
from app.server.guard import Door, Guard
from app.server.load_limits import LoadLimits
from app.server.prefill import Prefilled
from app.server.request_body import Intake


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
