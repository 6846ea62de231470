"""What all open pages show alike, computed once a second and sent to every one of them as Server-Sent Events.

A page of its own asks the server for nothing while nothing concerns it. What is the same for all (the line at the
top, the run at work) is sent as HTML by part; what is not rings: the message names the tabs that have something new,
and a page that has such a tab in sight asks for it by the tab's own event. A page that is slow, or was cut off, gets
the newest of each part and a ring for all that it missed: nothing is kept for it but the number of what it has.
"""

import asyncio
import contextlib
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.load_limits import busy

ADDRESS = "/nibble/live"
SECONDS = 1.0
# A page that has heard nothing for so long is told that there is nothing to tell: it knows that it is not cut off.
BEAT_SECONDS = 10.0
MOST_PAGES = 250
# The rings of many pages are spread over so long for each, or all would ask at once.
SPREAD_SECONDS = 0.03
# What a page in the background is told: the line at the top, for its title and for the end of a run.
QUIET = frozenset({"strip"})
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True)
class Snapshot:
    """One look at everything: the HTML of each part, and the tabs on which something else changed since the last."""

    parts: dict[str, str]
    rings: set[str]


@dataclass(eq=False)
class Listener:
    """A page that listens: the number of the last look that it was sent, 0 before the first."""

    quiet: bool
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    has: int = 0
    sent_at: float = field(default_factory=time.monotonic)
    gone: bool = False


class Feed:
    """Looks once a second while anybody listens. All but the look itself happens on the server's event loop."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.look: Callable[[], Snapshot] = lambda: Snapshot({}, set())
        self._seconds = seconds
        self._server = secrets.token_hex(4)
        self._listeners: set[Listener] = set()
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0
        self._fresh = False
        self._parts: dict[str, str] = {}
        self._changed: dict[str, int] = {}
        self._rung: dict[str, int] = {}
        self._encoded: dict[tuple[int, bool], bytes] = {}

    @property
    def pages(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def close(self) -> None:
        """End the thread; pages that listen are cut off with the server."""
        self._closed.set()
        self._wanted.set()

    async def stream(self, quiet: bool, receive: Receive, send: Send) -> None:
        """Tell one page all there is, and then what changes, until it goes."""
        listener = Listener(quiet)
        watch = asyncio.ensure_future(_until_gone(listener, receive))
        self._join(listener)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            while not listener.gone and not self._closed.is_set():
                if message := self._due(listener):
                    # Waits where the page does not take it: by then there may be newer, and only that is sent.
                    await send({"type": "http.response.body", "body": message, "more_body": True})
                await listener.wake.wait()
                listener.wake.clear()
        finally:
            watch.cancel()
            self._leave(listener)

    async def once(self) -> bytes:
        """What a page in the background is told when it asks from time to time."""
        listener = Listener(quiet=True)
        self._join(listener)
        try:
            while not (self._fresh or self._closed.is_set()):
                await listener.wake.wait()
                listener.wake.clear()
            return self._message(listener).removeprefix(_BEFORE).rstrip()
        finally:
            self._leave(listener)

    def _join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        self._loop = asyncio.get_running_loop()
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
            self._thread.start()

    def _leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and not self._closed.is_set():
            self._wanted.clear()
            self._fresh = False

    def _due(self, listener: Listener) -> bytes:
        """What this page is to be sent now; empty where that is nothing."""
        message, now = b"", time.monotonic()
        if self._fresh and listener.has < self._number:
            message = self._message(listener)
            listener.has = self._number
        if not message and now - listener.sent_at > BEAT_SECONDS:
            message = _event({})
        if message:
            listener.sent_at = now
        return message

    def _message(self, listener: Listener) -> bytes:
        """All that changed since the look that this page has; made once for all that have the same."""
        key = (listener.has, listener.quiet)
        if key not in self._encoded:
            fresh = {name for name, number in self._changed.items() if number > listener.has}
            shown = fresh & QUIET if listener.quiet else fresh
            rings = [] if listener.quiet else [name for name, number in self._rung.items() if 0 < listener.has < number]
            news: dict[str, object] = {"parts": {name: self._parts[name] for name in sorted(shown)}}
            news |= {"rings": rings, "within": round(SPREAD_SECONDS * (self.pages - 1), 3)}
            if not listener.has:
                news["server"] = self._server
            nothing = listener.has and not shown and not rings
            self._encoded[key] = b"" if nothing else _event(news)
        return self._encoded[key]

    def _take(self, look: Snapshot) -> None:
        """Tell the pages of a look. What a part said last stays, so that a page that comes later gets it."""
        if not self._listeners:
            return
        fresh = {name for name, html in look.parts.items() if self._parts.get(name) != html}
        if fresh or look.rings or not self._number:
            self._number += 1
            self._parts |= look.parts
            self._changed |= dict.fromkeys(fresh, self._number)
            self._rung |= dict.fromkeys(look.rings, self._number)
            self._encoded.clear()
        self._fresh = True
        for listener in self._listeners:
            listener.wake.set()

    def _work(self) -> None:
        """The thread. Whatever a look meets, the next one is tried; a sentence is said once."""
        news = ""
        while self._wanted.wait() and not self._closed.is_set():
            began = time.monotonic()
            try:
                look = self.look()
            except Exception as error:  # a full disk, a damaged file, no memory
                if news != (news := f"The pages could not be brought up to date: {error!r}. It is tried again."):
                    print(news, file=sys.stderr)
            else:
                with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                    assert self._loop is not None
                    self._loop.call_soon_threadsafe(self._take, look)
            self._closed.wait(max(0.0, self._seconds - (time.monotonic() - began)))


_BEFORE = b"data: "


def _event(news: dict[str, object]) -> bytes:
    """A Server-Sent Event. JSON has no line break of its own."""
    return _BEFORE + json.dumps(news, ensure_ascii=False).encode() + b"\n\n"


async def _until_gone(listener: Listener, receive: Receive) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()
    listener.gone = True
    listener.wake.set()


class Broadcast:
    """ASGI middleware behind the guard: answers the feed's address, and hands on everything else.

    `?strip` tells the line at the top only, `?once` tells it once, as JSON.
    """

    def __init__(self, app: ASGIApp, feed: Feed) -> None:
        self.app, self.feed = app, feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the page goes; a refusal where too many listen."""
        if scope["type"] != "http" or scope["path"] != ADDRESS:
            return await self.app(scope, receive, send)
        asked = scope.get("query_string", b"")
        if scope["method"] != "GET":
            return await PlainTextResponse("Only GET is answered here.", 405)(scope, receive, send)
        if self.feed.pages >= MOST_PAGES:
            return await busy(scope)(scope, receive, send)
        if asked == b"once":
            news = await self.feed.once()
            answer = Response(news, media_type="application/json", headers={"cache-control": "no-store"})
            return await answer(scope, receive, send)
        return await self.feed.stream(asked == b"strip", receive, send)
