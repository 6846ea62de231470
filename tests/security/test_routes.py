"""Every route of the running app, under every host, from every origin, with every token: only the right ones get in.

The routes are read off the app that runs: Gradio's, those that answer by method, and ours. What gets in is seen by a
spy in the place of all that lies behind the guard; that the guard is in front of it is seen over the network.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from app.main import Server, Serving, launch
from app.server import login
from app.server.guard import UNUSED, Door, Guard
from app.server.instance import choose_port
from app.server.login import Login
from core.system.addresses import Names
from core.untrusted.paths import Reach
from core.workspace import Workspace
from tests.security.routes import routes_of

LAN, TUNNEL = "192.168.1.7", "a1b2c3.gradio.live"
NAMES = ("127.0.0.1", "localhost")
OTHER = 9999  # another port of this machine
# Asked of what answers by itself, before any route.
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE")
# What a browser asks before a page of another site may send JSON.
PREFLIGHT = ((b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"content-type"))
REFUSED = (401, 403, 421)


@pytest.fixture(scope="session")
def asked(server: Server, guard: Guard) -> list[tuple[str, str]]:
    """Path and method of every route that the running app has, parameters filled in, and a preflight of each."""
    app = server.demo.app
    found = {(re.sub(r"\{[^}]*\}", "x", path), method) for path, method in routes_of(app.routes)}
    for path in ("/nothing/is/here", login.PATH, *_answered_before_any_route(guard)):
        found |= {(path, method) for method in METHODS}
    return sorted(found | {(path, "OPTIONS") for path, _ in found})


def _answered_before_any_route(guard: Guard) -> Iterator[str]:
    """The addresses of our own parts of the running stack: each module of theirs says its own."""
    part: Any = guard
    while part is not None:
        module = sys.modules[type(part).__module__]
        ours = module.__name__.startswith("app.")
        yield from (getattr(module, name) for name in ("PREFIX", "ADDRESS") if ours and hasattr(module, name))
        part = getattr(part, "app", None)


@dataclass
class Spy:
    """Stands behind the guard: notes what was let in, and answers it."""

    inside: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer whatever it is."""
        self.inside.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True)
class Access:
    """One way to ask: under a host, from an origin, with a cookie and a token in the address."""

    host: str
    origin: str | None
    cookie: str = ""
    query: str = ""

    def scope(self, path: str, method: str) -> dict[str, Any]:
        """As the server hands a request on."""
        headers = [(b"host", self.host.encode()), *(PREFLIGHT if method == "OPTIONS" else ())]
        headers += [(b"origin", self.origin.encode())] if self.origin is not None else []
        headers += [(b"cookie", self.cookie.encode())] if self.cookie else []
        scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}
        scope |= {"method": method, "path": path, "raw_path": path.encode(), "query_string": self.query.encode()}
        return {**scope, "headers": headers, "client": (LAN, 5), "server": ("127.0.0.1", 80), "root_path": ""}


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def statuses(app: ASGIApp, asked: list[dict[str, Any]]) -> list[int]:
    """What `app` answers to each."""
    found: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    async def ask() -> None:
        for scope in asked:
            await app(scope, _nothing, send)

    asyncio.run(ask())
    return found


def try_all(
    server: Server, guard: Guard, asked: list[tuple[str, str]], ways: dict[Access, bool], only_page: set[Access]
) -> None:
    """Ask for every route in every one of the `ways`: in gets who should, `only_page` to the page and nowhere else."""
    served = server.demo.server.config.loaded_app
    spy = guard.app
    assert isinstance(spy, Spy)
    for path, method in asked:
        if guard.door.login is not None and path == login.PATH:
            continue  # the login itself: tests/app/server/test_security.py
        spy.inside.clear()
        found = statuses(served, [way.scope(path, method) for way in ways])
        for (way, right), status in zip(ways.items(), found, strict=True):
            welcome = right and (way not in only_page or path == "/")
            let_in = 404 if path.startswith(UNUSED) else 200
            assert status == let_in if welcome else status in REFUSED, (method, path, way)
        assert len(spy.inside) == found.count(200), (method, path)


@pytest.fixture
def spied(guard: Guard, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The guard of the running app, with a spy in the place of all that it guards (`asked` was read off it before)."""
    monkeypatch.setattr(guard, "app", Spy())
    return guard


def _origins(host: str, port: int) -> list[str | None]:
    """Own, foreign and none, for a request under `host`."""
    foreign = ["http://evil.example", f"http://{LAN}:{port}", "null", f"http://localhost:{OTHER}"]
    return [None, f"http://{host}", *foreign]


def _ways(hosts: list[str], right_hosts: set[str], port: int, cookies: dict[str, bool]) -> dict[Access, bool]:
    ways = {}
    for host, (cookie, opens) in itertools.product(hosts, cookies.items()):
        for origin in _origins(host, port):
            own = origin in (None, f"http://{host}")
            ways[Access(host, origin, cookie)] = host in right_hosts and own and opens
    return ways


def test_the_routes_are_those_of_the_app(asked: list[tuple[str, str]]) -> None:
    found = dict(asked)
    assert len(found) > 70
    expected = {"/", "/config", "/gradio_api/queue/join", "/gradio_api/file=x", "/gradio_api/upload", "/manifest.json"}
    assert {*expected, "/export-download/", "/nibble/live", "/gradio_api/startup-events"} <= found.keys()
    assert ("/gradio_api/queue/join", "POST") in asked


def test_on_this_machine_only_the_right_host_origin_and_token_together_get_in(
    server: Server, spied: Guard, asked: list[tuple[str, str]]
) -> None:
    door = spied.door
    port, token = door.names.port, door.token
    right = {f"{name}:{port}" for name in NAMES}
    wrong = [
        "evil.example",
        f"evil.example:{port}",
        f"{LAN}:{port}",
        "null",
        f"127.0.0.1:{OTHER}",
        f"localhost:{OTHER}",
    ]
    cookies = {
        "": False,
        f"{door.cookie}=wrong": False,
        f"nibble_{OTHER}={token}": False,
        f"{door.cookie}={token}": True,
    }
    ways = _ways([*sorted(right), *wrong], right, port, cookies)
    by_address = {Access(f"127.0.0.1:{port}", None, query=f"token={token}"): True}
    by_address |= {Access(host, None, query=f"token={token}"): False for host in wrong}
    by_address |= {
        Access(f"127.0.0.1:{port}", None, query=query): False for query in ("token=wrong", "token=", "token")
    }
    try_all(server, spied, asked, ways | by_address, only_page=set(by_address))


@pytest.mark.parametrize("listen", [False, True], ids=["at the machine", "listening"])
def test_behind_a_login_only_the_right_host_origin_and_session_get_in(
    server: Server, spied: Guard, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, listen: bool
) -> None:
    names = Names(spied.door.names.port, listen)
    door = Door(names, token=None, login=Login("anna", "pass"), starting=False)
    assert door.login is not None
    session = door.login._begin()
    monkeypatch.setattr(spied, "door", door)
    right = {f"127.0.0.1:{names.port}", *([f"{LAN}:{names.port}"] if listen else [])}
    hosts = [f"127.0.0.1:{names.port}", f"{LAN}:{names.port}", f"evil.example:{names.port}", f"{LAN}:{OTHER}"]
    cookies = {"": False, f"{door.cookie}={session[:-1]}": False, f"{door.cookie}={session}": True}
    token = Access(f"127.0.0.1:{names.port}", None, query=f"token={session}")
    try_all(server, spied, asked, _ways(hosts, right, names.port, cookies) | {token: False}, only_page=set())


def test_over_a_public_link_only_its_own_name_origin_and_session_get_in(
    server: Server, spied: Guard, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(spied.door.names.port)
    names.tunnel = TUNNEL
    door = Door(names, token=None, login=Login("anna", "pass"), starting=False)
    assert door.login is not None
    cookie = f"{door.cookie}={door.login._begin()}"
    monkeypatch.setattr(spied, "door", door)
    ways = {Access(TUNNEL, origin, cookie): True for origin in (None, f"https://{TUNNEL}")}
    ways |= {Access(TUNNEL, origin, cookie): False for origin in (f"http://{TUNNEL}", "null", "https://evil.example")}
    ways |= {Access(host, None, cookie): False for host in ("other.gradio.live", f"{TUNNEL}:{OTHER}", f"{LAN}:80")}
    try_all(server, spied, asked, ways | {Access(TUNNEL, None): False}, only_page=set())


@pytest.mark.full
def test_a_public_link_that_gradio_gives_leads_to_the_app_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Gradio's own page for links takes its scripts from another site, which our headers forbid."""
    from gradio import networking

    monkeypatch.setattr(networking, "setup_tunnel", lambda **_: f"https://{TUNNEL.upper()}")
    workspace = Workspace.open(tmp_path)
    door = Door(Names(choose_port(0)), login=Login("anna", "pass"))
    running = launch(workspace, Serving(door, Reach.of(workspace, listening=True), share=True))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{door.names.port}", trust_env=False) as client:
            public = {"host": TUNNEL, "origin": f"https://{TUNNEL}"}
            assert door.names.tunnel == TUNNEL
            assert client.get("/", headers={"host": TUNNEL}).status_code == 401
            signed = client.post(login.PATH, data={"name": "anna", "password": "pass"}, headers=public)
            cookie = signed.headers["set-cookie"]
            assert signed.status_code == 303 and "; Secure" in cookie
            page = client.get("/", headers={"host": TUNNEL, "cookie": cookie.partition(";")[0]})
            assert page.status_code == 200 and "./assets/" in page.text and "amazonaws" not in page.text
            settings = client.get("/config", headers={"host": TUNNEL, "cookie": cookie.partition(";")[0]})
            assert settings.json()["root"] == f"https://{TUNNEL}"
        assert "public" not in capfd.readouterr().out
    finally:
        running.stop()


def test_over_the_network_nothing_stands_in_front_of_the_guard(guard: Guard, asked: list[tuple[str, str]]) -> None:
    """No spy here: what answers is the server itself, with the middleware that Gradio adds by itself."""
    port, cookie = guard.door.names.port, f"{guard.door.cookie}={guard.door.token}"
    wire = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    host = f"127.0.0.1:{port}"
    without = {"Host": host}
    foreign_host = {"Host": f"evil.example:{port}", "Cookie": cookie}
    foreign_page = {"Host": host, "Cookie": cookie, "Origin": "http://evil.example"}
    preflight = {name.decode(): value.decode() for name, value in PREFLIGHT}
    for path, method in asked:
        for headers, status in ((without, 401), (foreign_host, 421), (foreign_page, 403)):
            wire.request(method, path, headers={**headers, **(preflight if method == "OPTIONS" else {})})
            answer = wire.getresponse()
            answer.read()
            assert answer.status == status, (method, path, headers)
            assert "access-control-allow-origin" not in answer.headers
    for path in ("/", "/config", "/theme.css", "/favicon.ico"):
        wire.request("GET", path, headers={"Host": host, "Cookie": cookie, "Origin": f"http://{host}"})
        answer = wire.getresponse()
        assert answer.status == 200 and answer.read(), path
    wire.close()
