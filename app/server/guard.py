"""Who may talk to the app: nobody but the person who was given its address or its password, and no other web page.

Gradio by itself serves any Host header (DNS rebinding), runs cross-origin posts and lets routes out of its login. The
guard stands in front of all of it, of Gradio's own middleware too, and knows no exception once the app has started.
"""

import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server import door_pages, login
from app.server.keys import HEADERS, Tickets
from app.server.login import Login
from core.system.addresses import Names

# Gradio asks this of itself before launch() returns; from then on it is as shut as all else.
PROBE = "/gradio_api/startup-events"
# Gradio's routes that Nibble has no use for, and which do something: fetch, convert, run, tell.
UNUSED = (
    "/gradio_api/file=http",
    "/gradio_api/file/",
    "/gradio_api/call/",
    "/gradio_api/proxy=",
    "/gradio_api/process_recording",
    "/gradio_api/vibe-",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/deep_link",
    "/gradio_api/run-history",
    "/gradio_api/runs",
    "/gradio_api/dev/",
    "/gradio_api/mcp",
    "/gradio_api/openapi.json",
    "/gradio_api/token",
    "/monitoring",
    "/login",
    "/logout",
)
ELSEWHERE = ("cross-site", "same-site")  # another port of this machine is `same-site` to a browser
FOREIGN_PAGE = "Requests from other web pages are refused."
# What those behind the guard must not believe, as anybody can send it, or need not know.
HIDDEN = (b"cookie", b"authorization", b"forwarded", b"x-forwarded-", b"x-real-ip", b"x-gradio-")


@dataclass
class Door:
    """What the guard lets in: requests under `names`, with the key (`token`) or a session of the `login`.

    Exactly one of the two is set. `starting` holds until the server has asked itself whether it is up.
    """

    names: Names
    token: str | None = None
    login: Login | None = None
    starting: bool = True
    tickets: Tickets = field(default_factory=Tickets)

    @property
    def cookie(self) -> str:
        """The cookie's name. It holds the port: all ports of one host share their cookies."""
        return f"nibble_{self.names.port}"

    def knows(self, carried: str) -> bool:
        """Whether the cookie `carried` opens it."""
        return self.login.knows(carried) if self.login is not None else self.is_key(carried)

    def is_key(self, given: str) -> bool:
        """Whether `given` is the key."""
        return bool(self.token) and secrets.compare_digest(given.encode(), str(self.token).encode())

    def opens(self, given: str) -> bool:
        """Whether `given`, of an address, is the key, or a ticket in its place, which is used up by this."""
        return self.is_key(given) or (bool(self.token) and self.tickets.take(str(self.token), given))


class Guard:
    """ASGI middleware: Host, Origin, then the key or a session; our headers on every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal or the login, or hand the request on."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # Gradio's queue speaks over HTTP; nothing here needs a web socket
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope, receive)
        answer = self._foreign(request)
        brings_key = answer is None and self._brings_key(request)
        answer = answer or await self._at_the_door(request, brings_key)
        if answer is not None:
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            return await answer(scope, receive, send)
        added = HEADERS | ({"set-cookie": self._cookie(request, str(self.door.token))} if brings_key else {})
        return await self.app(self._for_those_behind(scope, request), receive, _with_headers(send, added))

    def _foreign(self, request: Request) -> Response | None:
        """The refusal of what comes under another name, or from another page."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self.door.names.served(hosts[0]):
            sentence = f"This app does not answer under that name, only on this machine's port {self.door.names.port}."
            return PlainTextResponse(sentence, 421)
        own = f"{self._scheme(request)}://{hosts[0].lower()}"
        if any(origin.lower() != own for origin in request.headers.getlist("origin")):
            return PlainTextResponse(FOREIGN_PAGE, 403)
        opens = request.method in ("GET", "HEAD") and request.headers.get("sec-fetch-mode") == "navigate"
        if request.headers.get("sec-fetch-site") in ELSEWHERE and not opens:
            return PlainTextResponse(FOREIGN_PAGE, 403)
        return None

    async def _at_the_door(self, request: Request, brings_key: bool) -> Response | None:
        """The answer to who has neither the key nor a session, or asks for what is unused; None for who may come in."""
        door = self.door
        if door.starting and request.scope["path"] == PROBE and request.method == "GET":
            return None
        to_sign_in = door.login is not None and request.scope["path"] == login.PATH
        if door.login is not None and to_sign_in and request.method == "POST":
            return await door.login.answer(request, lambda session: self._cookie(request, session))
        if brings_key or door.knows(self._carried(request)):
            if to_sign_in:
                return RedirectResponse("/", 303)
            unused = request.scope["path"].lower().startswith(UNUSED)
            return PlainTextResponse("There is no such page.", 404) if unused else None
        return login.page() if door.login is not None else HTMLResponse(door_pages.key(), 401)

    def _carried(self, request: Request) -> str:
        # Not by SimpleCookie: one cookie of another local app that it cannot read would hide ours.
        parts = ";".join(request.headers.getlist("cookie")).split(";")
        pairs = (part.strip().partition("=") for part in parts)
        return next((value for name, _, value in pairs if name == self.door.cookie), "")

    def _brings_key(self, request: Request) -> bool:
        """Whether it opens the page by the address that was printed; no other route takes the key from an address."""
        given = request.query_params.get("token") if request.scope["path"] == "/" else None
        return given is not None and self.door.opens(given)

    def _cookie(self, request: Request, value: str) -> str:
        secure = "; Secure" if self._scheme(request) == "https" else ""
        return f"{self.door.cookie}={value}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _scheme(self, request: Request) -> str:
        """By what it was sent: the tunnel ends TLS before us, and nothing that a client says counts."""
        return "https" if request.headers.get("host", "").lower() == self.door.names.tunnel else "http"

    def _for_those_behind(self, scope: Scope, request: Request) -> Scope:
        """The request without the key, and without what a client says of itself."""
        headers = [pair for pair in scope["headers"] if not pair[0].startswith(HIDDEN)]
        scheme = self._scheme(request)
        if scheme == "https":  # by which Gradio makes its addresses
            headers.append((b"x-forwarded-proto", b"https"))
        query = scope["query_string"]
        if "token" in request.query_params:
            asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
            query = urlencode([pair for pair in asked if pair[0] != "token"]).encode()
        return {**scope, "headers": headers, "scheme": scheme, "query_string": query}


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    """`send`, with these headers on the answer in place of any of the same name that it has."""
    ours = [(name.encode(), value.encode()) for name, value in added.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            theirs = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in added]
            message = {**message, "headers": theirs + ours}
        await send(message)

    return sending
