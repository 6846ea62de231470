"""The way in for what is posted: its size, depth and numbers are looked at before Gradio reads it.

Gradio reads a body of any size and depth, takes NaN for a number, and answers an event that does not exist with a
traceback in the log.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY_BYTES = 4 * 2**20
DEEPEST, MOST_VALUES = 12, 20_000
# These are no JSON: files, which have a limit of their own.
UPLOADS = ("/gradio_api/upload", "/upload")
_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
TOO_LARGE = "The request is too large. Send less, or upload it as a file."
NO_JSON = "This is not valid JSON; NaN, Infinity and truncated data are not allowed."
TOO_DEEP = "The request holds too many values, or is nested too deeply."
NO_EVENT = "This page has no such event. Reload the page."


class Intake:
    """ASGI middleware behind the guard, within Gradio's server: it knows the events that there are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a body that cannot be meant, or hand it on as it is."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"].rstrip("/") in UPLOADS:
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        body = await _whole(receive, headers.get("content-length", ""))
        if body is None:
            return await JSONResponse({"detail": TOO_LARGE}, 413)(scope, receive, send)
        kind = headers.get("content-type", "")
        if body and (not kind or "json" in kind):  # else a form, which Gradio reads on no route of events
            status, message = _refusal(body, scope["app"].get_blocks().fns)
            if message:
                return await JSONResponse({"detail": message}, status)(scope, receive, send)
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        return await self.app(scope, again, send)


def _refusal(body: bytes, events: Mapping[int, Any]) -> tuple[int, str]:
    """With which status and why this cannot be meant; an empty sentence where it can."""
    try:
        sent = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return 400, NO_JSON
    if not _is_plain(sent):
        return 400, TOO_DEEP
    if isinstance(sent, dict):
        event, session = sent.get("fn_index"), sent.get("session_hash")
        if event is not None and (type(event) is not int or event not in events):
            return 404, NO_EVENT
        if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
            return 400, NO_EVENT
    return 200, ""


async def _whole(receive: Receive, announced: str) -> bytes | None:
    """The body; None where it is larger than may be, of which no more is read."""
    if announced.isdecimal() and int(announced) > LARGEST_BODY_BYTES:
        return None
    parts, size = [], 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _no_number(word: str) -> float:
    raise ValueError(word)


def _is_plain(sent: Any) -> bool:
    """Whether a value is neither deep nor of very many parts, with finite numbers only."""
    level, seen = [sent], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, float) and not math.isfinite(value):
                return False
            if isinstance(value, (list, dict)):
                below += value.values() if isinstance(value, dict) else value
        seen += len(below)
        if not below:
            return True
        if seen > MOST_VALUES:
            return False
        level = below
    return False
