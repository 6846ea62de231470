"""Tools that a row offers, and the calls that a reply makes, in the form that chat templates expect."""

from __future__ import annotations

from typing import Any

from core.data.conversation import Row
from core.data.formats.reading import Unusable, from_json, missing

_ARGUMENT_NAMES = ("arguments", "parameters", "input", "args")


def tools_of(row: Row) -> list[dict[str, Any]] | None:
    """The functions in the row's `tools` or `functions`, each as `{"type": "function", "function": {…}}`.

    Raises Unusable where they are neither a list of descriptions nor JSON for one.
    """
    for name in ("tools", "functions"):
        if name not in row:
            continue
        value = row[name]
        if isinstance(value, str) and value.strip():
            value = from_json(value, f"its {name!r}")
        if missing(value) or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
            continue
        found = value if isinstance(value, list) else [value]
        return [_tool(each, name) for each in found if not missing(each)] or None
    return None


def _tool(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, str):
        value = from_json(value, f"a description in its {name!r}")
    if not isinstance(value, dict):
        raise Unusable(f"its {name!r} are not descriptions of functions")
    if isinstance(value.get("function"), dict):
        return {"type": "function"} | value
    if not isinstance(value.get("name"), str):
        raise Unusable(f"a description in its {name!r} has no name")
    return {"type": "function", "function": {key: part for key, part in value.items() if key != "type"}}


def calls_of(value: Any) -> list[dict[str, Any]]:
    """The calls in a `tool_calls`, a `function_call`, or a text with JSON for one. Raises Unusable."""
    if isinstance(value, str):
        value = from_json(value, "a tool call")
    if value == []:
        raise Unusable("a tool call is empty")
    return [_call(each) for each in (value if isinstance(value, list) else [value])]


def _call(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("a tool call is not an object")
    function: dict[str, Any] = value["function"] if isinstance(value.get("function"), dict) else value
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Unusable("a tool call has no name")
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": _arguments(function)}}
    if isinstance(value.get("id"), str):
        call = {"id": value["id"], **call}
    return call


def _arguments(function: dict[str, Any]) -> dict[str, Any]:
    key = next((key for key in _ARGUMENT_NAMES if not missing(function.get(key))), None)
    value = function[key] if key else {}
    if isinstance(value, str):
        value = from_json(value, "the arguments of a tool call") if value.strip() else {}
    if not isinstance(value, dict):
        raise Unusable("the arguments of a tool call are not an object")
    return value
