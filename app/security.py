"""Who may talk to the app: nobody but the person who was given its address, and no other web page.

Gradio by itself serves any Host header (DNS rebinding), runs cross-origin posts, answers without a login and
lets environment variables open files and tunnels. `Guard` closes that in front of it. What it does not do:
protect from other programs of the same user, who can read the workspace anyway.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]

# Gradio asks the first one of itself before it is up; browsers fetch the other two without cookies.
WITHOUT_TOKEN = frozenset({"/gradio_api/startup-events", "/manifest.json", "/pwa_icon"})
LOGIN_TRIES, LOGIN_PAUSE_SECONDS = 5, 30.0

# gr.HTML compiles its template in the browser, hence 'unsafe-eval'; inline scripts stay forbidden.
HEADERS = {
    "content-security-policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

REFUSED = (
    "<!doctype html><meta charset=utf-8><title>Nibble</title>"
    "<body style='font:16px/1.6 system-ui;max-width:34rem;margin:18vh auto;padding:0 1rem'>"
    "<h1 style='font-size:1.3rem'>This page needs its key</h1>"
    "<p>Open the address that the terminal printed, with <code>?token=…</code> at its end. "
    "A second <code>python launch.py</code> opens it for you.</p>"
)


def scrub_environment() -> None:
    """Take away the variables by which Gradio would open files, tunnels or ports behind our back.

    Call it before gradio is imported: some are read at import.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def workspace_token(state: Path) -> str:
    """The workspace's key, made on first use and readable by its owner only.

    It is kept, so that a page that is still open goes on working when the server is started again.
    """
    path = state / "token"
    if not path.is_file():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text().strip()


def host_allowed(host: str, shared: bool = False) -> bool:
    """Whether a Host header is one that no foreign name server can have made up.

    A literal address cannot be rebound, nor can this machine's own name; with `shared` Gradio's tunnel is let in.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        own = {"localhost", socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        return name in own or (shared and name.endswith(".gradio.live"))
    return True


class Guard:
    """ASGI middleware: Host, Origin, token, login throttle, security headers; in this order.

    `token` None means that Gradio's own login guards the app (--auth).
    """

    def __init__(self, app: Asgi, *, token: str | None, port: int, shared: bool = False) -> None:
        self.app = app
        self.token = token
        self.cookie = f"nibble_{port}"
        self.shared = shared
        self.failed_logins = 0
        self.closed_until = 0.0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a refusal, or hand the request on with our headers on its answer."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if scope["type"] == "websocket":  # Gradio's queue speaks over HTTP; nothing here needs one
            return await send({"type": "websocket.close", "code": 1008})
        if refusal is not None:
            return await _answer(send, *refusal)
        cookie = self._new_cookie(scope, headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count_login(scope, message["status"])
                added = {**HEADERS, **cookie}
                kept = [(name, value) for name, value in message["headers"] if name.decode() not in HEADERS]
                message = {**message, "headers": kept + [(n.encode(), v.encode()) for n, v in added.items()]}
            await send(message)

        return await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not host_allowed(host, self.shared):
            return 421, "This app does not answer under that name."
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return 403, "Another web page may not talk to this app."
        if headers.get("sec-fetch-site") == "cross-site" and scope.get("method") not in ("GET", "HEAD"):
            return 403, "Another web page may not talk to this app."
        if self._is_login(scope) and time.monotonic() < self.closed_until:
            return 429, "Too many failed logins. Try again in half a minute."
        if self.token is None or scope["path"] in WITHOUT_TOKEN:
            return None
        if not (self._holds_token(_query_token(scope)) or self._holds_token(self._cookie_token(headers))):
            return 401, REFUSED
        return None

    def _holds_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self.token or "").encode())

    def _cookie_token(self, headers: dict[str, str]) -> str:
        # Not by SimpleCookie: one cookie of another local app that it cannot read would hide ours.
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self.cookie), "")

    def _new_cookie(self, scope: Message, headers: dict[str, str]) -> dict[str, str]:
        if self.token is None or not self._holds_token(_query_token(scope)):
            return {}
        return {"set-cookie": f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"}

    @staticmethod
    def _is_login(scope: Message) -> bool:
        return scope["path"].rstrip("/").endswith("/login") and scope.get("method") == "POST"

    def _count_login(self, scope: Message, status: int) -> None:
        if not self._is_login(scope):
            return
        self.failed_logins = self.failed_logins + 1 if status >= 400 else 0
        if self.failed_logins >= LOGIN_TRIES:
            self.failed_logins, self.closed_until = 0, time.monotonic() + LOGIN_PAUSE_SECONDS


def _query_token(scope: Message) -> str:
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]


async def _answer(send: Send, status: int, text: str) -> None:
    kind = b"text/html; charset=utf-8" if text.startswith("<") else b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind), *((n.encode(), v.encode()) for n, v in HEADERS.items())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
