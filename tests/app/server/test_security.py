"""Nobody reaches the app but who was given its address or its password, and no other web page does it for them."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.server import instance, keys, login
from app.server.guard import Door, Guard
from app.server.login import Login, Throttle, generated_password
from core.system.addresses import Names, machine_names

PORT = 7860
TOKEN = "the-right-token"
HERE = f"http://127.0.0.1:{PORT}"
TUNNEL = "a1b2c3.gradio.live"
RIGHT = {"name": "anna", "password": "correct horse"}


async def _page(request: Request) -> JSONResponse:
    """What those behind the guard see of a request."""
    seen = {"headers": dict(request.headers), "query": request.url.query, "scheme": request.url.scheme}
    return JSONResponse({"inside": True, **seen}, headers={"Referrer-Policy": "unsafe-url"})


def _door(*, listen: bool = False, tunnel: str | None = None, **settings: Any) -> Door:
    names = Names(PORT, listen)
    names.tunnel = tunnel
    return Door(names, **{"token": TOKEN, "starting": False, **settings})


def _client(door: Door | None = None, base_url: str = HERE) -> TestClient:
    routes = [Route("/{path:path}", _page, methods=["GET", "POST", "PUT"])]
    guard = Middleware(Guard, door=door or _door())
    return TestClient(Starlette(routes=routes, middleware=[guard]), base_url=base_url, follow_redirects=False)


def _behind_login(**settings: Any) -> Door:
    return _door(token=None, login=Login(RIGHT["name"], RIGHT["password"], **settings))


def _sign_in(client: TestClient, form: dict[str, str] = RIGHT, **more: Any) -> Any:
    return client.post(login.PATH, data=form, headers={"origin": str(client.base_url), **more})


def test_without_the_token_there_is_nothing_to_see() -> None:
    answer = _client().get("/")
    assert answer.status_code == 401
    assert "inside" not in answer.text


@pytest.mark.parametrize("token", ["wrong", "", TOKEN[:-1], TOKEN + "x", "%00", "é"])
def test_a_wrong_token_opens_nothing(token: str) -> None:
    assert _client().get(f"/?token={token}").status_code == 401
    assert _client().get("/", headers={"cookie": f"nibble_{PORT}={token}".encode()}).status_code == 401


def test_a_door_without_a_key_opens_to_nobody() -> None:
    for token in (None, ""):
        assert _client(_door(token=token)).get("/?token=").status_code == 401
        assert _client(_door(token=token)).get("/", headers={"cookie": f"nibble_{PORT}="}).status_code == 401


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_and_other_sites_cannot_use() -> None:
    client = _client()
    answer = client.get(f"/?token={TOKEN}&__theme=dark")
    cookie = answer.headers["set-cookie"]
    assert answer.json()["inside"]
    assert cookie.startswith(f"nibble_{PORT}=")  # the port: all ports of one host share their cookies
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client.get("/gradio_api/queue/data").json()["inside"]


def test_a_ticket_opens_the_page_once_and_soon_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    door = _door()
    good, late = keys.ticket(TOKEN), keys.ticket(TOKEN)
    assert TOKEN not in good
    forged = [keys.ticket("another key"), good[:-1], f"9{good}", good.replace(".", ":"), "..", ".", "x.y.z"]
    for each in (*forged, f"1.x.{keys._signature(TOKEN, '1.x')}"):
        assert _client(door).get(f"/?token={each}").status_code == 401, each
    assert _client(door).get(f"/config?token={good}").status_code == 401
    client = _client(door)
    answer = client.get(f"/?token={good}")
    assert answer.json()["inside"] and good not in answer.text and f"={TOKEN};" in answer.headers["set-cookie"]
    assert client.get("/").status_code == 200
    assert _client(door).get(f"/?token={good}").status_code == 401
    assert _client(door).get("/", headers={"cookie": f"nibble_{PORT}={late}"}).status_code == 401
    later = time.time() + keys.TICKET_SECONDS + 2
    monkeypatch.setattr(time, "time", lambda: later)
    assert _client(door).get(f"/?token={late}").status_code == 401


@pytest.mark.parametrize("window", [False, True])
def test_the_browser_is_started_with_a_ticket_not_with_the_key(monkeypatch: pytest.MonkeyPatch, window: bool) -> None:
    """Every user of a computer can see with what a program was started."""
    started: list[str] = []
    monkeypatch.setattr(instance, "find_browser", lambda: "/usr/bin/browser")
    monkeypatch.setattr(instance.webbrowser, "open", started.append)
    monkeypatch.setattr(instance.subprocess, "Popen", lambda command, **_: started.extend(command))
    instance.show(f"{HERE}/?token={TOKEN}", window)
    assert started and TOKEN not in " ".join(started)
    assert _client().get(started[-1].removeprefix("--app=")).json()["inside"]
    instance.show(f"{HERE}/", window)
    assert started[-1].removeprefix("--app=") == f"{HERE}/"


def test_what_is_behind_the_guard_never_sees_the_key() -> None:
    client = _client()
    assert client.get(f"/?token={TOKEN}&__theme=dark").json()["query"] == "__theme=dark"
    assert TOKEN not in client.get("/").text


def test_only_the_page_takes_the_token_from_an_address() -> None:
    for path in ("/config", "/gradio_api/queue/data", "/export-download/x/y"):
        assert _client().get(f"{path}?token={TOKEN}").status_code == 401


def test_the_cookie_of_another_port_is_not_ours() -> None:
    assert _client().get("/", headers={"cookie": f"nibble_7861={TOKEN}"}).status_code == 401


@pytest.mark.parametrize("other", ['a={"x":1}', "flag", "x[y]=1", "=", "a=b=c", "é=1"])
def test_a_strange_cookie_of_another_app_does_not_lock_the_person_out(other: str) -> None:
    cookie = f"{other}; nibble_{PORT}={TOKEN}".encode("latin-1")
    assert _client().get("/", headers={"cookie": cookie}).json()["inside"]


@pytest.mark.parametrize(
    "host",
    [
        *("[", "[::1", "a]b", "", "null", "127.0.0.1@evil.example:7860", "evil.example", "evil.example:7860"),
        *("localhost.evil.example:7860", "127.0.0.1.evil.example:7860", "localhost.:7860", "0.0.0.0:7860"),
        *("192.168.1.7:7860", "10.0.0.1:7860", "[fe80::1]:7860", "127.0.0.2:7860", f"{socket.gethostname()}:7860"),
        *("127.0.0.1", "127.0.0.1:7861", "localhost:80", "127.0.0.1:07860:1", "127.1:7860", "2130706433:7860"),
        *("127.0.0.1:7860/", "127.0.0.1:7860 ", "localhost:7860,evil.example", "abc.gradio.live"),
    ],
)
def test_on_loopback_no_other_name_and_no_other_port_is_served(host: str) -> None:
    assert _client().get(f"/?token={TOKEN}", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:7860", "[::1]:7860"])
def test_this_machines_own_names_are_served(host: str) -> None:
    assert _client().get(f"/?token={TOKEN}", headers={"host": host}).status_code == 200


def test_two_hosts_or_two_origins_in_one_request_are_refused() -> None:
    hosts = [("host", f"127.0.0.1:{PORT}"), ("host", "evil.example")]
    assert _client().get(f"/?token={TOKEN}", headers=hosts).status_code == 421
    origins = [("origin", HERE), ("origin", "http://evil.example")]
    assert _client().get(f"/?token={TOKEN}", headers=origins).status_code == 403


def test_with_listen_addresses_and_this_machines_names_are_served_and_no_others() -> None:
    names = Names(PORT, listen=True)
    for name in ("192.168.1.7", "10.0.0.1", "[fd00::1]", "localhost", *machine_names()):
        assert names.served(f"{name}:{PORT}"), name
    for name in ("evil.example", "0.0.0.0", "gradio.live", "192.168.1.7.evil.example", "machine.fritz.box"):
        assert not names.served(f"{name}:{PORT}"), name
    assert not names.served("192.168.1.7:7861")


def test_port_80_needs_no_port_in_the_name() -> None:
    assert Names(80).served("localhost") and not Names(PORT).served("localhost")


def test_the_tunnels_own_name_is_served_and_no_other_tunnel() -> None:
    client = _client(_door(tunnel=TUNNEL), f"https://{TUNNEL}")
    answer = client.get(f"/?token={TOKEN}")
    assert answer.json()["scheme"] == "https" and answer.json()["headers"]["x-forwarded-proto"] == "https"
    assert "Secure" in answer.headers["set-cookie"]
    assert client.get("/", headers={"host": "other.gradio.live"}).status_code == 421
    assert client.post("/x", headers={"origin": f"https://{TUNNEL}"}).status_code == 200
    assert client.post("/x", headers={"origin": f"http://{TUNNEL}"}).status_code == 403
    assert _client().get("/", headers={"host": TUNNEL}).status_code == 421


@pytest.mark.parametrize(
    "origin",
    [
        *("[", "http://[", "null", "file://", "http://127.0.0.1:7861", "http://127.0.0.1", "http://evil.example"),
        *("http://localhost:7860", "https://127.0.0.1:7860", "http://192.168.1.7:7860", "HTTP://127.0.0.1:7860.evil"),
    ],
)
def test_another_page_gets_nothing_even_with_the_key(origin: str) -> None:
    client = _client()
    client.get(f"/?token={TOKEN}")
    for send in (client.get, client.post):
        assert send("/gradio_api/queue/join", headers={"origin": origin}).status_code == 403
    assert client.post("/gradio_api/queue/join", headers={"origin": HERE}).json()["inside"]


def test_what_another_page_embeds_is_refused_but_its_links_lead_here() -> None:
    client = _client()
    client.get(f"/?token={TOKEN}")
    for site in ("cross-site", "same-site"):  # another port of this machine is same-site, and its requests bear cookies
        embedded = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        followed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
        assert client.get("/config", headers=embedded).status_code == 403
        assert client.post("/gradio_api/queue/join", headers=followed).status_code == 403
        assert client.get("/", headers=followed).status_code == 200


@pytest.mark.parametrize(
    "path", ["file=https://evil.example/x", "file=HTTP://10.0.0.1/x", "file/http://a/x", "vibe-edit/", "proxy=http://a"]
)
def test_gradios_routes_that_fetch_convert_or_run_are_shut_also_to_those_who_are_in(path: str) -> None:
    client = _client()
    client.get(f"/?token={TOKEN}")
    answer = client.get(f"/gradio_api/{path}")
    assert answer.status_code == 404 and "inside" not in answer.text


def test_what_a_client_says_of_itself_is_not_believed() -> None:
    client = _client()
    client.get(f"/?token={TOKEN}")
    lies = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-gradio-server": "http://evil.example"}
    seen = client.get("/", headers={**lies, "forwarded": "host=evil.example", "authorization": "Bearer x"}).json()
    assert not {*lies, "forwarded", "authorization", "cookie"} & seen["headers"].keys()
    assert "evil" not in str(seen)


def test_gradios_own_probe_is_answered_until_it_is_up_and_nothing_else() -> None:
    door = _door(starting=True)
    client = _client(door)
    assert client.get("/gradio_api/startup-events").json()["inside"]
    assert client.post("/gradio_api/startup-events").status_code == 401
    for path in ("/", "/manifest.json", "/pwa_icon", "/config", "/gradio_api/startup-events/"):
        assert client.get(path).status_code == 401
    door.starting = False
    for path in ("/gradio_api/startup-events", "/manifest.json", "/pwa_icon"):
        assert client.get(path).status_code == 401


def test_every_answer_forbids_frames_inline_scripts_and_foreign_addresses() -> None:
    answers = [_client().get("/"), _client().get(f"/?token={TOKEN}"), _client().get("/", headers={"host": "x"})]
    answers += [_client(_behind_login()).get("/"), _sign_in(_client(_behind_login()))]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        assert not re.search(r"https?:|\*", policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers.get_list("referrer-policy") in (["no-referrer"], ["same-origin"])
    assert answers[1].headers["referrer-policy"] == "no-referrer"


def test_a_web_socket_is_closed() -> None:
    with pytest.raises(WebSocketDisconnect) as closed, _client().websocket_connect(f"/?token={TOKEN}"):
        pass
    assert closed.value.code == 1008


def test_with_a_login_its_page_is_all_there_is_to_see() -> None:
    client = _client(_behind_login())
    for path in ("/", "/config", "/gradio_api/startup-events", login.PATH, f"/?token={TOKEN}", "/?token="):
        answer = client.get(path)
        assert answer.status_code == 401 and "Sign in to Nibble" in answer.text and "inside" not in answer.text
    assert client.put(login.PATH).status_code == 401


def test_the_right_password_gives_a_session_that_scripts_and_other_sites_cannot_use() -> None:
    client = _client(_behind_login())
    answer = _sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"nibble_{PORT}=") and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert RIGHT["password"] not in str(answer.headers)
    assert client.get("/config").json()["inside"]
    assert client.get(login.PATH).headers["location"] == "/"  # as after the form's page is loaded again


def test_a_session_ends_half_a_day_after_it_was_last_used() -> None:
    now = 0.0
    door = _door(token=None, login=Login(**{"name": "anna", "password": RIGHT["password"]}, clock=lambda: now))
    client = _client(door)
    _sign_in(client)
    for hours in (11, 22, 33):
        now = hours * 3600.0
        assert client.get("/").status_code == 200
    now = 46 * 3600.0
    assert client.get("/").status_code == 401


@pytest.mark.parametrize(
    "form",
    [
        {"name": "anna", "password": "wrong"},
        {"name": "bob", "password": "correct horse"},
        {"name": "anna", "password": ""},
        {"name": "", "password": ""},
        {"name": "anna\0correct horse", "password": ""},
        {"password": "correct horse"},
        {},
    ],
)
def test_a_wrong_password_gives_none(form: dict[str, str]) -> None:
    answer = _sign_in(_client(_behind_login()), form)
    assert answer.status_code == (401 if form else 400) and "set-cookie" not in answer.headers


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data"])
def test_only_the_forms_own_kind_is_read_and_only_so_much_of_it(kind: str) -> None:
    client = _client(_behind_login())
    sent = "name=anna&password=correct+horse"
    assert client.post(login.PATH, content=sent, headers={"content-type": kind}).status_code == 400
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(login.PATH, content=sent + "&x=" + "y" * 5000, headers=form).status_code == 400
    assert client.post(login.PATH, content=b"name=\xff\xfe&password=%ff", headers=form).status_code in (400, 401)
    assert client.post(login.PATH, content=sent, headers=form).status_code == 303


def test_a_login_that_another_page_posts_is_refused() -> None:
    client = _client(_behind_login())
    for origin in ("null", "http://evil.example", "http://127.0.0.1:7861"):
        assert client.post(login.PATH, data=RIGHT, headers={"origin": origin}).status_code == 403


def test_the_login_page_lets_the_browser_say_its_origin() -> None:
    # Under `no-referrer` a browser posts a form with the origin `null` (Fetch, "append a request Origin header").
    assert _client(_behind_login()).get("/").headers["referrer-policy"] == "same-origin"


def test_wrong_passwords_are_slowed_down_and_the_right_one_too() -> None:
    now = 1000.0
    client = _client(_behind_login(throttle=Throttle(clock=lambda: now)))
    tries = [_sign_in(client, {"name": "anna", "password": f"{n}"}).status_code for n in range(6)]
    assert tries == [401] * 5 + [429]
    held = _sign_in(client)
    assert held.status_code == 429 and held.headers["retry-after"] == "30" and "30 seconds" in held.text
    now += 31
    assert _sign_in(client).status_code == 303


def test_the_pause_doubles_and_ends_at_a_quarter_of_an_hour() -> None:
    now = 0.0
    throttle = Throttle(clock=lambda: now)
    waits = []
    for _ in range(10):
        for _ in range(throttle.tries):
            throttle.failed("10.0.0.9")
        waits.append(throttle.wait("10.0.0.9"))
        now += 10_000
    assert waits[:4] == [30, 60, 120, 240] and waits[-1] == 900


def test_one_that_fails_does_not_hold_up_others_but_many_are_slowed_together() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for _ in range(throttle.tries):
        throttle.failed("10.0.0.9")
    assert throttle.wait("10.0.0.9") > 0 and throttle.wait("10.0.0.10") == 0
    for number in range(throttle.tries_in_all):
        throttle.failed(f"10.1.0.{number}")
    assert throttle.wait("10.9.9.9") > 0


def test_the_addresses_of_one_ipv6_network_are_counted_as_one() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for number in range(throttle.tries):
        throttle.failed(f"2001:db8::{number + 1}")
    assert throttle.wait("2001:db8::ffff") > 0 and throttle.wait("2001:db8:0:1::1") == 0


def test_ever_new_addresses_fill_no_memory() -> None:
    throttle = Throttle(most_addresses=100, clock=lambda: 0.0)
    for number in range(5000):
        throttle.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(throttle._failed) <= 100 and len(throttle._closed_until) <= 101


def test_passwords_sent_side_by_side_are_all_counted() -> None:
    """Twenty at once, each let past the throttle only if the ones before it have been counted."""
    client = _client(_behind_login())
    app = client.app

    async def attack() -> list[int]:
        from httpx import ASGITransport, AsyncClient

        async with AsyncClient(transport=ASGITransport(app), base_url=HERE) as many:
            asked = [many.post(login.PATH, data={"name": "anna", "password": str(n)}) for n in range(20)]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    found = asyncio.run(attack())
    assert (found.count(401), found.count(429)) == (5, 15)


def test_a_generated_password_is_long_and_never_the_same() -> None:
    made = {generated_password() for _ in range(100)}
    assert len(made) == 100 and all(re.fullmatch(r"([0-9a-f]{6}-){3}[0-9a-f]{6}", each) for each in made)


def test_the_token_is_kept_for_the_next_start_and_for_its_owner_only(tmp_path: Path) -> None:
    token = keys.workspace_token(tmp_path)
    assert keys.workspace_token(tmp_path) == token
    assert len(token) >= 32
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
    (tmp_path / "token").chmod(0o644)
    keys.workspace_token(tmp_path)
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kept", [b"", b"\n", b"short", b"\xff\xfe"])
def test_a_token_file_that_holds_no_whole_key_is_made_anew(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "token").write_bytes(kept)
    assert len(keys.workspace_token(tmp_path)) >= 32


def test_variables_that_would_open_gradio_are_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH", "GRADIO_MCP_SERVER", "UVICORN_HOST")
    for name in (*hostile, *keys.SCRUBBED):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("SYSTEM", "spaces")
    keys.scrub_environment()
    assert {name for name in os.environ if name.startswith("GRADIO_")} == {"GRADIO_ANALYTICS_ENABLED"}
    assert not {*keys.SCRUBBED, "SYSTEM", "UVICORN_HOST"} & os.environ.keys()


@pytest.mark.parametrize("share", [False, True])
def test_the_server_reaches_itself_past_any_proxy_which_then_counts_again(
    monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    monkeypatch.setenv("all_proxy", "socks5://proxy.example:2")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    with keys.reaching_ourselves(share):
        assert "127.0.0.1" in os.environ["NO_PROXY"] and "127.0.0.1" in os.environ["no_proxy"]
        assert ("HTTPS_PROXY" in os.environ) is share
    assert dict(os.environ) == before
