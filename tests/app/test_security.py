"""Nobody reaches the app but who was given its address, and no other web page does it for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app import security

PORT = 7860
TOKEN = "the-right-token"
HERE = f"http://127.0.0.1:{PORT}"


async def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("inside", status_code=400 if request.url.path == "/login" else 200)


def _client(**settings: Any) -> TestClient:
    routes = [Route("/{path:path}", _page, methods=["GET", "POST"])]
    guard = Middleware(security.Guard, **{"token": TOKEN, "port": PORT, **settings})
    return TestClient(Starlette(routes=routes, middleware=[guard]), base_url=HERE)


def test_without_the_token_there_is_nothing_to_see() -> None:
    answer = _client().get("/")
    assert answer.status_code == 401
    assert "inside" not in answer.text


def test_a_wrong_token_opens_nothing() -> None:
    assert _client().get("/?token=wrong").status_code == 401


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_and_other_sites_cannot_use() -> None:
    client = _client()
    answer = client.get(f"/?token={TOKEN}")
    cookie = answer.headers["set-cookie"]
    assert answer.text == "inside"
    assert cookie.startswith(f"nibble_{PORT}=")  # the port: all ports of one host share their cookies
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client.get("/gradio_api/queue/data").text == "inside"


def test_the_cookie_of_another_port_is_not_ours() -> None:
    assert _client().get("/", headers={"cookie": f"nibble_7861={TOKEN}"}).status_code == 401


@pytest.mark.parametrize("other", ['a={"x":1}', "flag", "x[y]=1", "=", "a=b=c", "é=1"])
def test_a_strange_cookie_of_another_app_does_not_lock_the_person_out(other: str) -> None:
    cookie = f"{other}; nibble_{PORT}={TOKEN}".encode("latin-1")
    assert _client().get("/", headers={"cookie": cookie}).text == "inside"


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "", "127.0.0.1@evil.example", "evil.example:7860"])
def test_a_malformed_host_is_refused_not_an_error(host: str) -> None:
    assert _client().get(f"/?token={TOKEN}", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["[", "http://[", "null", "file://", "http://127.0.0.1:7861", "http://127.0.0.1"])
def test_a_malformed_or_foreign_origin_is_refused_not_an_error(origin: str) -> None:
    answer = _client().post(f"/?token={TOKEN}", headers={"origin": origin, "host": f"127.0.0.1:{PORT}"})
    assert answer.status_code == 403


def test_a_name_that_somebody_else_pointed_here_is_refused() -> None:
    answer = _client().get(f"/?token={TOKEN}", headers={"host": "evil.example"})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "192.168.1.7:7860"])
def test_addresses_and_this_machines_names_are_served(host: str) -> None:
    assert security.host_allowed(host)


def test_the_tunnels_name_is_served_only_where_it_was_asked_for() -> None:
    assert not security.host_allowed("abc.gradio.live")
    assert security.host_allowed("abc.gradio.live", shared=True)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_another_page_cannot_post_even_with_the_cookie(origin: str) -> None:
    client = _client()
    client.get(f"/?token={TOKEN}")
    assert client.post("/gradio_api/queue/join", headers={"origin": origin}).status_code == 403
    assert client.post("/gradio_api/queue/join", headers={"origin": HERE}).text == "inside"


def test_gradios_own_probe_and_the_manifest_need_no_token() -> None:
    client = _client()
    for path in ("/gradio_api/startup-events", "/manifest.json"):
        assert client.get(path).text == "inside"


def test_every_answer_forbids_frames_inline_scripts_and_foreign_addresses() -> None:
    for path in ("/", f"/?token={TOKEN}"):
        headers = _client().get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "'unsafe-inline'" not in headers["content-security-policy"].split("style-src")[0]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_with_a_login_wrong_passwords_are_slowed_down() -> None:
    client = _client(token=None)
    tries = [client.post("/login").status_code for _ in range(security.LOGIN_TRIES + 1)]
    assert tries == [400] * security.LOGIN_TRIES + [429]


def test_the_token_is_kept_for_the_next_start_and_for_its_owner_only(tmp_path: Path) -> None:
    token = security.workspace_token(tmp_path)
    assert security.workspace_token(tmp_path) == token
    assert len(token) >= 32
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0


def test_variables_that_would_open_gradio_are_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH", "GRADIO_MCP_SERVER"):
        monkeypatch.setenv(name, "true")
    security.scrub_environment()
    left = {name for name in os.environ if name.startswith("GRADIO_")}
    assert left == {"GRADIO_ANALYTICS_ENABLED"}
