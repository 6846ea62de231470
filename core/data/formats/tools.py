"""Tools that a row offers, and the calls that a reply makes, in the form that chat templates expect."""

from typing import Any

from core.data.conversation import Row
from core.data.formats.row_reading import Reading, Unusable, from_json, missing
from core.data.formats.unused import leave

TOOL_NAMES = ("tools", "functions", "toolconfig", "tool_config")
_ARGUMENT_NAMES = ("arguments", "parameters", "input", "args")
_CALL_IDS = ("id", "toolUseId", "tool_use_id", "call_id", "tool_call_id")


def tools_of(row: Row, reading: Reading) -> list[dict[str, Any]] | None:
    """The functions in the `tools` or `functions` of a row or a turn, each as `{"type": "function", "function": {…}}`.

    Raises Unusable where they are neither a list of descriptions nor JSON for one.
    """
    for name in TOOL_NAMES:
        if name not in row:
            continue
        value = row[name]
        reading.used.add(name)
        if isinstance(value, str) and value.strip():
            value = from_json(value, f"its {name!r}")
        if missing(value) or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
            continue
        if isinstance(value, dict) and isinstance(value.get("tools"), list):
            leave(reading, name, value, {"tools"})
            value = value["tools"]
        found = value if isinstance(value, list) else [value]
        return [tool for each in found if not missing(each) for tool in _tools(each, name)] or None
    return None


def _tools(value: Any, name: str) -> list[dict[str, Any]]:
    """The functions in one description; Gemini and Bedrock put several, or one, into an envelope."""
    if isinstance(value, str):
        value = from_json(value, f"a description in its {name!r}")
    if not isinstance(value, dict):
        raise Unusable(f"its {name!r} are not descriptions of functions")
    several = value.get("functionDeclarations") or value.get("function_declarations")
    if isinstance(several, list) and len(value) == 1:
        return [tool for each in several for tool in _tools(each, name)]
    if isinstance(value.get("toolSpec"), dict) and len(value) == 1:
        return _tools(value["toolSpec"], name)
    if isinstance(value.get("function"), dict):
        return [{"type": "function"} | value]
    if not isinstance(value.get("name"), str):
        raise Unusable(f"a description in its {name!r} has no name")
    function = {key: part for key, part in value.items() if key != "type"}
    for schema in ("input_schema", "inputSchema"):  # Anthropic's name and Bedrock's for it
        if "parameters" not in function and isinstance(function.get(schema), dict):
            inner = function.pop(schema)
            function["parameters"] = inner["json"] if list(inner) == ["json"] else inner
    return [{"type": "function", "function": function}]


def calls_of(value: Any, reading: Reading, path: str) -> list[dict[str, Any]]:
    """The calls in a `tool_calls`, a `function_call`, or a text with JSON for one. Raises Unusable."""
    if isinstance(value, str):
        value = from_json(value, "a tool call")
    if value == []:
        raise Unusable("a tool call is empty")
    several = isinstance(value, list)
    return [_call(each, reading, f"{path}[]" if several else path) for each in (value if several else [value])]


def _call(value: Any, reading: Reading, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("a tool call is not an object")
    inner = value.get("function")
    function: dict[str, Any] = inner if isinstance(inner, dict) else value
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Unusable("a tool call has no name")
    key = next((key for key in _ARGUMENT_NAMES if not missing(function.get(key))), "")
    arguments = function[key] if key else {}
    if isinstance(arguments, str):
        arguments = from_json(arguments, "the arguments of a tool call") if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise Unusable("the arguments of a tool call are not an object")
    own = next((each for each in _CALL_IDS if isinstance(value.get(each), str)), "")
    leave(reading, path, value, {"type", own, *({"name", key} if function is value else {"function"})})
    if function is not value:
        leave(reading, f"{path}.function", function, {"name", key})
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": value[own], **call} if own else call
