"""The endpoint's ASGI app: its models, authorisation, routes, and replies that end when their client has gone.

Every request needs the key, compared in constant time, and has to name this machine and port in its Host header, or a
name by which containers know it, so that no web page reaches it by DNS rebinding. It listens on the loopback address
only, unless the user gives another.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.chat.client import ChatClient
from core.errors import AskError, ChildError, NibbleError
from core.generation.reply import PartialReply
from core.runs.chat_models import ChatModel, base_chat_model, list_chat_models
from core.serve.protocol import Completion, RequestError, model_card
from core.serve.request import Wanted, read_request
from core.system.addresses import Names
from core.workspace import Workspace

LARGEST_BODY = 8 * 2**20
MOST_WAITING = 32
LOOK_SECONDS = 0.25
GONE = "The client has gone."


class Served:
    """One chat model, and all others over the same base in the same bits: swapping them costs no memory."""

    def __init__(self, workspace: Workspace, chat_model: ChatModel) -> None:
        self._workspace, self.chat_model = workspace, chat_model

    def models(self) -> dict[str, ChatModel]:
        """The models by name, the endpoint's own first. Looked up on every call."""
        own = {name_of(self.chat_model): self.chat_model}
        base = base_chat_model(self.chat_model.model)
        others = [each for each in list_chat_models(self._workspace) if _same_base(each, self.chat_model)]
        if base.quantization == self.chat_model.quantization:
            others.append(base)
        return own | {name_of(each): each for each in others if name_of(each) not in own}

    def find(self, name: str) -> ChatModel | None:
        """The model with this name or key, None where there is none."""
        if name in (name_of(self.chat_model), self.chat_model.key):
            return self.chat_model
        models = self.models()
        return models.get(name) or next((each for each in models.values() if each.key == name), None)


def name_of(chat_model: ChatModel) -> str:
    """The name for clients: the model's key without its kind."""
    return chat_model.key.partition(":")[2]


def _same_base(chat_model: ChatModel, other: ChatModel) -> bool:
    same = chat_model.model == other.model and chat_model.quantization == other.quantization
    return same and (chat_model.revision is None or chat_model.revision == other.revision)


class Endpoint:
    """The ASGI app over one chat process, served under `names`. One reply at a time; MOST_WAITING may wait."""

    def __init__(self, client: ChatClient, served: Served, key: str, names: Names) -> None:
        self._client, self._served, self._key, self._names = client, served, key, names
        self._waiting = 0
        routes = [
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/models/{name:path}", self._guarded(self._model)),
            Route("/v1/chat/completions", self._guarded(self._complete), methods=["POST"]),
        ]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: self._guarded(_not_served)})

    def _guarded(self, answer: Any) -> Any:
        async def guarded(request: Request, *why: Exception) -> Response:
            try:
                self._let_in(request)
                return await answer(request, *why)
            except RequestError as error:
                headers = {"www-authenticate": "Bearer"} if error.status == 401 else None
                return JSONResponse(error.body(), error.status, headers)

        return guarded

    def _let_in(self, request: Request) -> None:
        """Raise RequestError where the key is wrong, or the Host or Origin is not this machine's."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._names.served(hosts[0]):
            raise RequestError(
                421,
                f"This endpoint does not accept the host name {', '.join(hosts)[:100]!r}. If it belongs to this "
                f"machine, start the endpoint with --allow-host and that name, without a port.",
            )
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in request.headers.getlist("origin")):
            raise RequestError(403, "Requests from other web pages are refused.")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key.encode()):
            message = "The API key is missing or wrong. Send it as: Authorization: Bearer <key>."
            raise RequestError(401, message, code="invalid_api_key")

    async def _models(self, request: Request) -> Response:
        models = await asyncio.to_thread(self._served.models)
        return JSONResponse({"object": "list", "data": [model_card(name) for name in models]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:
            return await self._models(request)
        await self._find(name)
        return JSONResponse(model_card(name))

    async def _find(self, name: str) -> ChatModel:
        chat_model = await asyncio.to_thread(self._served.find, name)
        if chat_model is None:
            known = ", ".join(list(await asyncio.to_thread(self._served.models))[:8])
            raise RequestError(404, f"There is no model {name!r} here. Available: {known}.", "model", "model_not_found")
        return chat_model

    async def _complete(self, request: Request) -> Response:
        wanted = read_request(await _body(request))
        chat_model = await self._find(wanted.model)
        if self._waiting >= MOST_WAITING:
            raise RequestError(429, "Too many requests are waiting. Try again.", code="rate_limit_exceeded")
        reply = _Reply(self._client, chat_model, wanted)
        self._waiting += 1
        try:
            first = await reply.first(request)
        except BaseException:
            self._done(reply)
            raise
        if wanted.stream:
            return StreamingResponse(self._chunks(reply, first, wanted), media_type="text/event-stream")
        try:
            last = await reply.last(request, first)
        finally:
            self._done(reply)
        return JSONResponse(Completion(wanted.model).whole(last))

    async def _chunks(self, reply: _Reply, first: PartialReply, wanted: Wanted) -> AsyncIterator[str]:
        """The reply as server-sent events. Starlette ends this where the client has gone."""
        completion, piece = Completion(wanted.model), first
        try:
            yield _event(completion.begin())
            while True:
                chunk = completion.more(piece)
                if chunk is not None:
                    yield _event(chunk)
                if piece.done:
                    break
                piece = await reply.next()
            yield _event(completion.end(piece))
            if wanted.with_usage:
                yield _event(completion.used(piece))
        except RequestError as error:
            yield _event(error.body())
        finally:
            self._done(reply)
        yield "data: [DONE]\n\n"

    def _done(self, reply: _Reply) -> None:
        self._waiting -= 1
        reply.leave()


class _Reply:
    """A reply that is generated in a thread and read in the server's event loop."""

    def __init__(self, client: ChatClient, chat_model: ChatModel, wanted: Wanted) -> None:
        self._pieces: asyncio.Queue[PartialReply | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._left = threading.Event()
        threading.Thread(target=self._make, args=(client, chat_model, wanted), daemon=True).start()

    def _make(self, client: ChatClient, chat_model: ChatModel, wanted: Wanted) -> None:
        reply = client.stream(chat_model, wanted.messages, wanted.sampling, owner="endpoint", asked=wanted.asked)
        try:
            for piece in reply:
                if self._left.is_set():
                    break
                self._tell(piece)
        except Exception as error:  # told to the client, in the loop
            self._tell(error)
        finally:
            reply.close()  # type: ignore[attr-defined]

    def _tell(self, what: PartialReply | Exception) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, what)

    def leave(self) -> None:
        """The client has gone: stop generating within a token or two."""
        self._left.set()

    async def next(self) -> PartialReply:
        """The next part of the reply. Raises RequestError where generating it failed."""
        found = await self._pieces.get()
        if isinstance(found, AskError):
            raise RequestError(400, str(found), found.setting, found.code) from None
        if isinstance(found, NibbleError):
            raise RequestError(500 if isinstance(found, ChildError) else 400, str(found)) from None
        if isinstance(found, Exception):
            raise RequestError(500, f"This should not have happened ({type(found).__name__}).") from found
        return found

    async def first(self, request: Request) -> PartialReply:
        """The next part, while the client stays connected. Raises RequestError."""
        waiting = asyncio.ensure_future(self.next())
        while not (await asyncio.wait([waiting], timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                waiting.cancel()
                raise RequestError(499, GONE)
        return waiting.result()

    async def last(self, request: Request, piece: PartialReply) -> PartialReply:
        """The whole reply, while the client stays connected. Raises RequestError."""
        looked = self._loop.time()
        while not piece.done:
            piece = await self.first(request)
            if self._loop.time() - looked > LOOK_SECONDS:
                looked = self._loop.time()
                if await request.is_disconnected():
                    raise RequestError(499, GONE)
        return piece


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise RequestError(413, f"The request is larger than {LARGEST_BODY // 2**20} MiB.")
    return body


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _not_served(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path} is not served here: /v1/models and /v1/chat/completions are."
    return JSONResponse(RequestError(error.status_code, text).body(), error.status_code)
