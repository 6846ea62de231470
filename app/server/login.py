"""The way in for others (--listen, --share, --auth): a name and a password, tried only so often, then a session.

Ours instead of Gradio's, which throttles nothing, hands its cookie to other sites too, and leaves routes outside.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.server import door_pages

PATH = "/nibble/login"
NAME = "nibble"
LARGEST_FORM, FORM_SECONDS = 4096, 10.0
SESSION_SECONDS, MOST_SESSIONS = 12 * 3600.0, 1000
EVERYBODY = "everybody"
Clock = Callable[[], float]


@dataclass
class Throttle:
    """How often a wrong password may be tried: `tries` an address, then a pause that doubles; `tries_in_all` by all.

    All together are slowed as well, since somebody may have many addresses, or stand behind one tunnel with others.
    """

    tries: int = 5
    tries_in_all: int = 50
    pause_seconds: float = 30.0
    longest_seconds: float = 900.0
    most_addresses: int = 10_000
    clock: Clock = time.monotonic
    _failed: dict[str, int] = field(default_factory=dict)
    _closed_until: dict[str, float] = field(default_factory=dict)

    def wait(self, address: str) -> float:
        """The seconds until `address` may try again; 0 where it may now."""
        closed = max(self._closed_until.get(who, 0.0) for who in (_of_one(address), EVERYBODY))
        return max(0.0, closed - self.clock())

    def failed(self, address: str) -> None:
        """`address` gave a wrong password."""
        self._count(_of_one(address), self.tries, self.longest_seconds)
        self._count(EVERYBODY, self.tries_in_all, self.pause_seconds)

    def passed(self, address: str) -> None:
        """`address` gave the right one: what it had failed before is forgotten."""
        self._failed.pop(_of_one(address), None)

    def _count(self, who: str, tries: int, longest: float) -> None:
        count = self._failed.pop(who, 0) + 1
        self._failed[who] = count  # the newest stands last
        if count % tries == 0:
            pause = min(longest, self.pause_seconds * 2 ** min(count // tries - 1, 16))
            self._closed_until[who] = self.clock() + pause
        while len(self._failed) > self.most_addresses:
            oldest = next(name for name in self._failed if name != EVERYBODY)
            del self._failed[oldest]
            self._closed_until.pop(oldest, None)


def _of_one(address: str) -> str:
    """What one person may have many of is counted as one: an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return address


class Login:
    """One name and password, and the sessions of those who gave them. All is gone when the server ends."""

    def __init__(self, name: str, password: str, throttle: Throttle | None = None, clock: Clock = time.monotonic):
        self.throttle = throttle or Throttle()
        self._wanted = _digest(name, password)
        self._clock = clock
        self._sessions: dict[bytes, float] = {}

    def knows(self, session: str) -> bool:
        """Whether `session` is one that was given out, and has been used in the last twelve hours."""
        name = hashlib.sha256(session.encode()).digest()
        ends = self._sessions.pop(name, 0.0)
        if ends < self._clock():
            return False
        self._sessions[name] = self._clock() + SESSION_SECONDS
        return True

    async def answer(self, request: Request, cookie: Callable[[str], str]) -> Response:
        """The answer to a POST of the form. `cookie` makes the header that carries a session."""
        try:
            given = await asyncio.wait_for(_form(request), FORM_SECONDS)
        except (TimeoutError, ClientDisconnect, ValueError):
            return page("The form is not valid. Reload the page.", 400)
        address = request.client.host if request.client else ""
        wait = self.throttle.wait(address)  # looked up, tried and counted in one go: nothing is awaited from here on
        if wait > 0:
            sentence = f"Too many wrong passwords. Try again in {math.ceil(wait)} seconds."
            return page(sentence, 429, {"retry-after": str(math.ceil(wait))})
        if not hmac.compare_digest(_digest(given.get("name", ""), given.get("password", "")), self._wanted):
            self.throttle.failed(address)
            return page("Wrong name or password.", 401)
        self.throttle.passed(address)
        return RedirectResponse("/", 303, {"set-cookie": cookie(self._begin())})

    def _begin(self) -> str:
        session = secrets.token_urlsafe(32)
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]  # used longest ago
        self._sessions[hashlib.sha256(session.encode()).digest()] = self._clock() + SESSION_SECONDS
        return session


def generated_password() -> str:
    """A password of 96 random bits, in groups that can be typed off a screen."""
    digits = secrets.token_hex(12)
    return "-".join(digits[start : start + 6] for start in range(0, len(digits), 6))


def _digest(name: str, password: str) -> bytes:
    """Of one length whatever was given, so that comparing tells nothing of the right one."""
    return hashlib.sha256(f"{name.strip()}\0{password}".encode()).digest()


async def _form(request: Request) -> dict[str, str]:
    """The fields that were posted. Raises ValueError for what this page's form does not send."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise ValueError("not a form")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise ValueError("too long for a name and a password")
    return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=4))


def page(message: str = "", status: int = 401, headers: dict[str, str] | None = None) -> Response:
    """The login page, with what went wrong before.

    Its referrer policy is its own: under no-referrer a browser posts a form with the origin `null`, which is refused.
    """
    added = {"referrer-policy": "same-origin", "cache-control": "no-store", **(headers or {})}
    return HTMLResponse(door_pages.login(message), status, added)
