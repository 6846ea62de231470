"""How much the server takes on at once; whoever comes beyond that is told to come again, and is let in when it can be.

Open pages are held by two requests each (Gradio's and the feed's), so these are some hundreds of pages.
"""

from collections.abc import Callable

from gradio.queueing import Queue
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

MOST_REQUESTS = 600
# Events that wait in Gradio's queue, all kinds together. Of each kind one is at work at a time.
MOST_WAITING = 300
# Pages whose state is kept, those that asked last: one takes two megabytes, and every reload is a new one.
MOST_SESSIONS = 250
# How often Gradio's queue looks for work, and for progress to tell, which nothing here has. By itself it looks a
# thousand times a second, which takes more of a core than all that pages are told.
LOOK_SECONDS, PROGRESS_SECONDS = 0.01, 1.0
AGAIN_SECONDS = 5
JOIN = "/gradio_api/queue/join"
SAID = "Nibble is busy. Try again in a few seconds."
PAGE = (
    "<!doctype html><meta charset=utf-8><title>Nibble</title>"
    f"<meta http-equiv=refresh content={AGAIN_SECONDS}>"
    "<body style='font:16px/1.6 system-ui;max-width:34rem;margin:18vh auto;padding:0 1rem'>"
    "<h1 style='font-size:1.3rem'>Nibble is busy</h1>"
    f"<p>Too many pages are open. This one tries again every {AGAIN_SECONDS} seconds. Training is not slowed down."
    "</p>"
)


def calm(queue: Queue) -> None:
    """Let Gradio's queue rest between its looks, keep no list of past events, and tell of places once a second.

    A press waits for the next look by five milliseconds on average. The list is of the last ten thousand events, for a
    page that is shut here, and Gradio works it up into a table after each of them: every press would take longer than
    the one before. And it would tell all who wait of each that begins: forty thousand times where three hundred wait.
    """
    queue.sleep_when_free, queue.progress_update_sleep_when_free = LOOK_SECONDS, PROGRESS_SECONDS
    queue.ANALYTICS_MAX_EVENTS = 0
    queue.live_updates, queue.update_intervals = False, PROGRESS_SECONDS


def busy(scope: Scope) -> Response:
    """The refusal: a page for a person, JSON for a script, both saying when to come again."""
    headers = {"retry-after": str(AGAIN_SECONDS), "cache-control": "no-store"}
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    if b"text/html" in accepted:
        return HTMLResponse(PAGE, 503, headers)
    return JSONResponse({"detail": SAID}, 503, headers)


class LoadLimits:
    """ASGI middleware behind the guard: refuses what is beyond the limits. `waiting` counts the queue's events."""

    def __init__(
        self, app: ASGIApp, waiting: Callable[[], int], most: int = MOST_REQUESTS, most_waiting: int = MOST_WAITING
    ) -> None:
        self.app, self.waiting, self.most, self.most_waiting = app, waiting, most, most_waiting
        self.at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        full = scope["path"] == JOIN and self.waiting() >= self.most_waiting
        if full or self.at_work >= self.most:
            return await busy(scope)(scope, receive, send)
        self.at_work += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.at_work -= 1
        return None
