"""Reads a request for a chat completion strictly: what is not supported is refused, never ignored."""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from core.data.conversation import Message
from core.generation.sampling import Sampling
from core.serve.messages import read_messages
from core.serve.parameters import read_sampling, refuse_parameters
from core.serve.protocol import RequestError

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class Wanted:
    """A request. `asked` are variables for the chat template (core/generation/template_variables.py)."""

    model: str
    messages: list[Message]
    sampling: Sampling
    asked: dict[str, Any]
    stream: bool
    with_usage: bool


def read_request(body: bytes) -> Wanted:
    """The request in `body`. Raises RequestError."""
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.") from None
    if not isinstance(given, dict):
        raise RequestError(400, "The body must be a JSON object.")
    refuse_parameters(given)
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError(400, "model must be the name of a model; /v1/models lists them.", "model", "invalid_type")
    stream = _yes_or_no(given.get("stream"), "stream")
    with_usage = _options(given.get("stream_options"))
    return Wanted(model, read_messages(given.get("messages")), read_sampling(given), _asked(given), stream, with_usage)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which are no JSON


def _yes_or_no(value: Any, name: str) -> bool:
    if not isinstance(value, (bool, type(None))):
        raise RequestError(400, f"{name} must be true or false.", name, "invalid_type")
    return value is True


def _options(options: Any) -> bool:
    """Whether token counts are wanted at the end of a stream. Raises RequestError."""
    if not isinstance(options, (dict, type(None))):
        raise RequestError(400, "stream_options must be an object.", "stream_options", "invalid_type")
    for name, value in (options or {}).items():
        if name != "include_usage" and value:
            where = f"stream_options.{name[:60]}"
            raise RequestError(400, f"{where} is not supported here.", where, "unsupported_parameter")
    return _yes_or_no((options or {}).get("include_usage"), "stream_options.include_usage")


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    variables, effort = given.get("chat_template_kwargs"), given.get("reasoning_effort")
    if not isinstance(variables, (dict, type(None))):
        name = "chat_template_kwargs"
        raise RequestError(400, f"{name} must be an object.", name, "invalid_type")
    if effort is not None and effort not in EFFORTS:
        text = f"reasoning_effort must be one of {', '.join(EFFORTS)}."
        raise RequestError(400, text, "reasoning_effort", "invalid_value")
    wanted = {"chat_template_kwargs": variables, "reasoning_effort": effort}
    return {name: value for name, value in wanted.items() if value}
