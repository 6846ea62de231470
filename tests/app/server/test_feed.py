"""The feed looks once for all pages, sends each only what changed, keeps nothing for one that is slow, and recovers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.server import feed as feeds
from app.server.feed import ADDRESS, Broadcast, Feed, Snapshot
from app.server.load_limits import JOIN, LoadLimits

EVERY = 0.02


class World:
    """What is looked at, and how often it was."""

    def __init__(self) -> None:
        self.parts = {"strip": "<b>1</b>", "loss": "<svg/>"}
        self.rings: set[str] = set()
        self.looks = 0

    def look(self) -> Snapshot:
        self.looks += 1
        rings, self.rings = self.rings, set()
        return Snapshot(dict(self.parts), rings)


class Page:
    """The other end of a request: keeps what it is sent, as long as it `takes` it."""

    def __init__(self, query: bytes = b"") -> None:
        self.query = query
        self.bodies: list[bytes] = []
        self.start: dict[str, Any] = {}
        self.takes, self._gone = asyncio.Event(), asyncio.Event()
        self.takes.set()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.bodies.append(message["body"])
        await self.takes.wait()

    async def receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def open(self, app: Any) -> asyncio.Task[None]:
        scope = {"type": "http", "path": ADDRESS, "method": "GET", "query_string": self.query, "headers": []}
        return asyncio.ensure_future(app(scope, self.receive, self.send))

    def close(self) -> None:
        self._gone.set()

    @property
    def said(self) -> list[dict[str, Any]]:
        assert all(body.startswith(b"data: ") and body.endswith(b"\n\n") for body in self.bodies)
        return [json.loads(body[6:]) for body in self.bodies]

    def parts(self) -> dict[str, str]:
        """What it shows."""
        return {name: html for said in self.said for name, html in said.get("parts", {}).items()}


async def _until(holds: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def _live(test: Callable[[World, Feed, Broadcast], Awaitable[None]]) -> None:
    """Run `test` with a feed of a world, behind its middleware."""
    world = World()
    feed = Feed(EVERY)
    feed.look = world.look
    try:
        asyncio.run(test(world, feed, Broadcast(_elsewhere, feed)))
    finally:
        feed.close()


async def _elsewhere(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_many_pages_cost_one_look_and_one_encoding_and_get_only_what_changed() -> None:
    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        pages = [Page() for _ in range(50)]
        for page in pages:
            page.open(app)
        await _until(lambda: all(page.bodies for page in pages))
        began, before = time.monotonic(), world.looks
        world.parts["loss"] = "<svg>2</svg>"
        await _until(lambda: all(len(page.bodies) == 2 for page in pages))
        await asyncio.sleep(10 * EVERY)
        assert world.looks - before <= (time.monotonic() - began) / EVERY + 2, "a look a page would be fifty times that"
        assert len({id(page.bodies[1]) for page in pages}) == 1, "made once, for all of them"
        for page in pages:
            first, second = page.said
            assert first["parts"] == {"strip": "<b>1</b>", "loss": "<svg/>"} and first["server"]
            assert second["parts"] == {"loss": "<svg>2</svg>"} and second["rings"] == []
            page.close()
        await _until(lambda: feed.pages == 0)

    _live(test)


def test_a_ring_names_the_tab_and_is_spread_over_the_pages() -> None:
    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        pages = [Page() for _ in range(10)]
        for page in pages:
            page.open(app)
        await _until(lambda: all(page.bodies for page in pages))
        world.rings = {"chat"}
        await _until(lambda: all(len(page.bodies) == 2 for page in pages))
        assert pages[0].said[1] == {"parts": {}, "rings": ["chat"], "within": 0.27}
        late = Page()
        late.open(app)
        await _until(lambda: late.bodies)
        assert late.said[0]["rings"] == [], "a page that has just been opened has asked for everything"

    _live(test)


def test_a_page_that_takes_nothing_is_kept_nothing_for_and_then_gets_the_newest() -> None:
    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        slow, fast = Page(), Page()
        slow.open(app), fast.open(app)
        await _until(lambda: slow.bodies and fast.bodies)
        slow.takes.clear()
        for number in range(20):
            world.parts["loss"] = f"<svg>{number}</svg>"
            world.rings = {"runs"} if number == 10 else set()
            await _until(lambda html=world.parts["loss"]: fast.parts()["loss"] == html)
        assert len(fast.bodies) == 21, "the others do not wait for it"
        assert len(slow.bodies) == 2, "one is on its way, no more"
        slow.takes.set()
        await _until(lambda: slow.parts()["loss"] == "<svg>19</svg>")
        assert len(slow.bodies) == 3 and slow.said[2]["rings"] == ["runs"], "what rang meanwhile is not lost"

    _live(test)


def test_while_nobody_listens_nothing_is_looked_at_and_the_next_gets_what_is_new() -> None:
    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        page = Page()
        request = page.open(app)
        await _until(lambda: page.bodies)
        page.close()
        await request
        await asyncio.sleep(3 * EVERY)
        looks = world.looks
        world.parts["strip"] = "<b>2</b>"
        await asyncio.sleep(5 * EVERY)
        assert world.looks == looks
        again = Page()
        again.open(app)
        await _until(lambda: again.bodies)
        assert again.said[0]["parts"]["strip"] == "<b>2</b>", "not what it was when somebody last looked"

    _live(test)


def test_a_page_in_the_background_hears_of_the_strip_only() -> None:
    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        quiet, once = Page(b"strip"), Page(b"once")
        quiet.open(app)
        await once.open(app)
        assert json.loads(once.bodies[0])["parts"] == {"strip": "<b>1</b>"}
        await _until(lambda: quiet.bodies)
        world.parts["loss"], world.rings = "<svg>2</svg>", {"runs"}
        await asyncio.sleep(5 * EVERY)
        assert len(quiet.bodies) == 1
        world.parts["strip"] = "<b>2</b>"
        await _until(lambda: len(quiet.bodies) == 2)
        assert quiet.said[1] == {"parts": {"strip": "<b>2</b>"}, "rings": [], "within": 0.0}

    _live(test)


def test_a_look_that_fails_is_tried_again_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        page = Page()
        page.open(app)
        await _until(lambda: page.bodies)
        good = feed.look

        def broken() -> Snapshot:
            world.looks += 1
            raise OSError("No space left on device")

        feed.look, before = broken, world.looks
        await _until(lambda: world.looks > before + 3)
        world.parts["loss"] = "<svg>2</svg>"
        feed.look = good
        await _until(lambda: page.parts()["loss"] == "<svg>2</svg>")

    _live(test)
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_page_that_hears_nothing_new_hears_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BEAT_SECONDS", 3 * EVERY)

    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        page = Page()
        page.open(app)
        await _until(lambda: len(page.bodies) > 2)
        assert page.said[1] == {}

    _live(test)


def test_too_many_pages_are_told_to_come_again_and_are_let_in_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "MOST_PAGES", 3)

    async def test(world: World, feed: Feed, app: Broadcast) -> None:
        pages = [Page() for _ in range(3)]
        requests = [page.open(app) for page in pages]
        await _until(lambda: feed.pages == 3)
        refused = Page()
        await refused.open(app)
        assert refused.start["status"] == 503 and (b"retry-after", b"5") in refused.start["headers"]
        pages[0].close()
        await requests[0]
        welcome = Page()
        welcome.open(app)
        await _until(lambda: welcome.bodies)
        assert welcome.start["status"] == 200

    _live(test)


def _ask(app: Any, path: str = "/", accept: bytes = b"text/html,*/*") -> tuple[int, dict[bytes, bytes], bytes]:
    """One request that nobody waits for long."""
    page = Page()

    async def asking() -> None:
        await app({"type": "http", "path": path, "headers": [(b"accept", accept)]}, page.receive, page.send)

    asyncio.run(asking())
    return page.start["status"], dict(page.start["headers"]), b"".join(page.bodies)


def test_a_full_queue_is_refused_and_taken_on_again_when_there_is_room() -> None:
    waiting = 5
    app = LoadLimits(_elsewhere, lambda: waiting, most_waiting=5)
    status, headers, body = _ask(app, JOIN, b"application/json")
    assert status == 503 and headers[b"retry-after"] == b"5"
    assert "Try again in a few seconds" in json.loads(body)["detail"]
    assert _ask(app, "/")[0] == 204, "all but what would have to wait is answered"
    waiting = 4
    assert _ask(app, JOIN)[0] == 204


def test_requests_beyond_the_limit_get_a_page_that_tries_again() -> None:
    async def test() -> None:
        held, pages = asyncio.Event(), [Page() for _ in range(3)]

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await held.wait()
            await _elsewhere(scope, receive, send)

        app = LoadLimits(slow, lambda: 0, most=2)
        requests = [page.open(app) for page in pages[:2]]
        await asyncio.sleep(0)
        scope = {"type": "http", "path": "/", "headers": [(b"accept", b"text/html")]}
        await app(scope, pages[2].receive, pages[2].send)
        assert pages[2].start["status"] == 503 and b"Nibble is busy" in pages[2].bodies[0]
        held.set()
        await asyncio.gather(*requests)
        again = Page()
        await app(scope, again.receive, again.send)
        assert again.start["status"] == 204 and app.at_work == 0

    asyncio.run(test())
