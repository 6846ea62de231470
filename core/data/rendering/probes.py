"""Short conversations of every kind, by which it is seen what a chat template does, once for each template."""

from typing import Any

from core.data.conversation import Message

# No template has such words of its own, and none of them begins as another does.
_CALL = {"type": "function", "id": "call00001", "function": {"name": "ζcount", "arguments": {"ζx": "ζone"}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "ζcount",
        "description": "Counts.",
        "parameters": {"type": "object", "properties": {"ζx": {"type": "string", "description": "What."}}},
    },
}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _reply(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


_SYSTEM = {"role": "system", "content": "Ωbrief"}
_RESULT = {"role": "tool", "name": "ζcount", "tool_call_id": "call00001", "content": "Ωresult"}

PROBES: dict[str, tuple[list[Message], list[dict[str, Any]] | None]] = {
    "turns": (
        [_user("Ωfirst"), _reply("ζalpha"), _user("Ωsecond"), _reply("δbeta"), _user("Ωthird"), _reply("ψgamma")],
        None,
    ),
    "system": ([_SYSTEM, _user("Ωfirst"), _reply("ζalpha")], None),
    "reasoning": (
        [
            _user("Ωfirst"),
            _reply("ζalpha", reasoning_content="θwhy"),
            _user("Ωsecond"),
            _reply("δbeta", reasoning_content="φso"),
        ],
        None,
    ),
    "thought": (
        [_user("Ωfirst"), _reply("<think>\nθwhy\n</think>\n\nζalpha"), _user("Ωsecond"), _reply("δbeta")],
        None,
    ),
    "tools": (
        [
            _user("Ωfirst"),
            _reply("", tool_calls=[_CALL], reasoning_content="θwhy"),
            _RESULT,
            _reply("δbeta"),
            _user("Ωsecond"),
            _reply("ψgamma"),
        ],
        [_TOOL],
    ),
}
