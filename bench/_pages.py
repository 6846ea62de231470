"""Open pages without a browser: each sends the server the requests of a real page, and listens as it does.

tests/security/test_load.py compares what a page requests by itself, while it watches a run, with a real Chromium.
Scripts, styles, fonts and pictures are left out: a browser caches them.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

# How long an answer may take, and how many pages are opened at once: opening one is work for the server.
PATIENCE_SECONDS = 120.0
AT_ONCE = 4


@dataclass
class Page:
    """One page on its Train tab. `errors` are messages; `gaps` are the seconds between two messages of the feed."""

    url: str
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    messages: int = 0
    bytes: int = 0
    shown: dict[str, str] = field(default_factory=dict)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)
    _ticking: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Load the page and keep it open until cancelled."""
        address = urlsplit(self.url)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=6)
        base = f"{address.scheme}://{address.netloc}"
        async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_SECONDS, limits=limits) as client:
            try:
                await self._live(client, f"{address.path}?{address.query}")
            except httpx.HTTPError as error:
                self.errors.append(repr(error))
                self._loaded.set()

    async def loaded(self) -> None:
        """Wait until it is filled and has received something from the feed."""
        await self._loaded.wait()

    async def _live(self, client: httpx.AsyncClient, path: str) -> None:
        await self._ask(client, "GET", path)
        config = (await self._ask(client, "GET", "/config")).json()
        await self._ask(client, "GET", "/gradio_api/info")
        held = [asyncio.ensure_future(self._heartbeat(client)), asyncio.ensure_future(self._feed(client, config))]
        try:
            due = [each for each in config["dependencies"] if any(event == "load" for _, event in each["targets"])]
            while due:
                event = due.pop(0)
                await self._event(client, event)
                due += [each for each in config["dependencies"] if each.get("trigger_after") == event["id"]]
            await self._heard.wait()
            self._loaded.set()
            await asyncio.gather(*held)
        finally:
            for task in held:
                task.cancel()

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
        self.asked.append(f"{method} {path.partition('?')[0]}")
        answer = await client.request(method, path, **more)
        answer.raise_for_status()
        return answer

    async def _heartbeat(self, client: httpx.AsyncClient) -> None:
        path = f"/gradio_api/heartbeat/{self.session}"
        self.asked.append("GET /gradio_api/heartbeat")
        async with client.stream("GET", path, timeout=None) as answer:
            answer.raise_for_status()
            async for _ in answer.aiter_bytes():
                pass

    async def _feed(self, client: httpx.AsyncClient, config: dict[str, Any]) -> None:
        self.asked.append("GET /nibble/live")
        heard = None
        async with client.stream("GET", "/nibble/live", headers={"accept": "text/event-stream"}) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line:
                    continue
                self.bytes += len(line)
                said = json.loads(line.removeprefix("data: "))
                now = time.monotonic()
                if heard is not None:
                    self.gaps.append(now - heard)
                heard, self.messages = now, self.messages + 1
                self.shown |= said.get("parts", {})
                self._heard.set()
                if "train" in said.get("rings", []):
                    self._ring(client, config, said["within"])
        self.errors.append("the feed ended")

    def _ring(self, client: httpx.AsyncClient, config: dict[str, Any], within: float) -> None:
        if self._ticking:
            return
        targets = [(each, event) for each in config["dependencies"] for _, event in each["targets"]]
        tick = next(each for each, event in targets if event == "tick_train")

        async def asking() -> None:
            await asyncio.sleep(random.uniform(0, within))
            await self._event(client, tick)

        task = asyncio.ensure_future(asking())
        self._ticking.add(task)
        task.add_done_callback(self._ticking.discard)

    async def _event(self, client: httpx.AsyncClient, event: dict[str, Any]) -> None:
        """Send a Gradio event and wait for its end."""
        if not event["backend_fn"]:
            return
        given = {"data": [None] * len(event["inputs"]), "fn_index": event["id"], "session_hash": self.session}
        joined = await self._ask(client, "POST", "/gradio_api/queue/join", json={**given, "event_data": None})
        wanted = joined.json()["event_id"]
        self.asked.append("GET /gradio_api/queue/data")
        async with client.stream("GET", f"/gradio_api/queue/data?session_hash={self.session}") as answer:
            async for line in answer.aiter_lines():
                said = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if said.get("msg") == "process_completed" and said.get("event_id") == wanted:
                    if not said.get("success"):
                        self.errors.append(f"event {event['id']}: {said.get('output')}")
                    return


class Pages:
    """Many pages at once: `async with Pages(url, 100) as pages`. All of them are open inside the block."""

    def __init__(self, url: str, count: int) -> None:
        self.pages = [Page(url) for _ in range(count)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Pages:
        turn = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._open(page, turn) for page in self.pages))
        return self

    async def _open(self, page: Page, turn: asyncio.Semaphore) -> None:
        async with turn:
            self._tasks.append(asyncio.ensure_future(page.open()))
            await page.loaded()

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def errors(self) -> list[str]:
        """The errors of all pages."""
        return [error for page in self.pages for error in page.errors]

    def forget(self) -> None:
        """Start counting again from here."""
        for page in self.pages:
            page.asked, page.gaps, page.messages, page.bytes = [], [], 0, 0
