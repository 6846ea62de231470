"""One turn to messages: the role, the content, its reasoning and tool calls, and how much it counts."""

import html
import re
from typing import Any

from core.data.conversation import Message, Row
from core.data.formats.content import messages_of, read_parts, text_of
from core.data.formats.row_reading import SYSTEM_NAMES, Reading, Unusable, first_filled, missing, short
from core.data.formats.tools import TOOL_NAMES, calls_of, tools_of
from core.data.formats.unused import is_empty, leave
from core.data.formats.weights import DETAIL_KEY, WEIGHT_KEYS, masked, weight_of

ROLE_KEYS = ("role", "from", "speaker", "author", "sender", "user")
TEXT_KEYS = ("content", "value", "text", "message", "utterance", "parts", "mes", "body")
_PAIR_KEYS = (("input", "output"), ("user", "assistant"), ("human", "assistant"), ("human", "gpt"),
              ("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("instruction", "output"),
              ("query", "response"))  # fmt: skip
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_CALL_KEYS = ("tool_calls", "function_call")
_NAMES = ("role", "name", "username", "nickname")  # of a speaker who is an object
# Items of OpenAI's Responses that stand between the turns without a role.
_ITEMS = ("function_call", "function_call_output")
_MEANINGS = {
    "user": ("user", "human", "prompter", "usr", "question", "prompt"),
    "assistant": ("assistant", "gpt", "chatgpt", "gpt4", "gpt-4", "bing", "bard", "claude", "model", "bot", "chatbot",
                  "ai", "llm", "answer", "response"),
    "system": ("system", "system_prompt", "developer"),
    "tool": ("tool", "observation", "function", "function_response", "function-response", "tool_response",
             "tool_result", "tool_output", "ipython"),
    "call": ("function_call", "function-call", "tool_call", "tool-call"),
}  # fmt: skip
ROLES = {name: role for role, names in _MEANINGS.items() for name in names}
# Reasoning as a folded block of HTML at the beginning of a reply, as Open WebUI writes it.
_DETAILS = re.compile(
    r'\A\s*<details type="reasoning"[^>]{0,400}>\s*(?:<summary>[^<]{0,200}</summary>)?([^<]*(?:<(?!/details>)[^<]*)*)'
    r"</details>\s*"
)


def read_turns(
    turns: list[Any], reading: Reading, path: str = "messages[]", keys: tuple[str, str] | None = None
) -> None:
    """Add a message for each turn at `path` (for a pair of question and answer: two). Raises Unusable."""
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unusable("a turn is not an object")
        named = keys or _usual_keys(turn)
        pair = None if named else pair_of(turn)
        if pair:
            _read_pair(turn, pair, reading, path)
        elif named or not _stands_between(turn, reading, path):
            _read_turn(turn, named or keys_of(turn), reading, path)


def add_system(row: Row, reading: Reading, names: tuple[str, ...] = SYSTEM_NAMES) -> None:
    """Put the system prompt of the row's own column in front, unless the turns begin with the same."""
    name = first_filled(row, names)
    if name is None or row[name] == "":
        return
    reading.used.add(name)
    value, path = row[name], name
    if isinstance(value, dict) and "parts" in value:
        leave(reading, name, value, {"parts", "role"})
        value, path = value["parts"], f"{name}.parts"
    text = text_of(value, f"its {name!r}", "system", {}, reading, path)
    if text and reading.messages[:1] != [{"role": "system", "content": text}]:
        reading.messages.insert(0, {"role": "system", "content": text})


def keys_of(turn: dict[str, Any]) -> tuple[str, str]:
    """Under which keys a turn says who speaks, and what. Raises Unusable where nobody does."""
    role = role_key(turn)
    if role is None:
        raise Unusable("a turn has no 'role'")
    filled = next((key for key in TEXT_KEYS if not is_empty(turn.get(key))), None)
    return role, filled or next((key for key in TEXT_KEYS if turn.get(key) is not None), "content")


def role_key(turn: dict[str, Any]) -> str | None:
    """The key under which a turn says who speaks."""
    return next((key for key in ROLE_KEYS if key in turn and not is_empty(turn[key])), None)


def pair_of(turn: dict[str, Any]) -> tuple[str, str] | None:
    """The keys of question and answer, where a turn is a pair of them."""
    if turn.get("role") is not None or turn.get("from") is not None:
        return None
    return next((pair for pair in _PAIR_KEYS if pair[0] in turn and pair[1] in turn), None)


def _usual_keys(turn: dict[str, Any]) -> tuple[str, str] | None:
    """The keys of nearly every turn, found without a search."""
    if turn.get("role") is not None and turn.get("content") is not None:
        return "role", "content"
    return ("from", "value") if turn.get("from") is not None and turn.get("value") is not None else None


def _stands_between(turn: dict[str, Any], reading: Reading, path: str) -> bool:
    """Whether this is no turn: a call or a result that stands by itself, or a note in which nobody says anything."""
    if role_key(turn) is not None:
        return False
    if turn.get("type") in _ITEMS:
        reading.messages += read_parts([turn], "assistant", "a turn", path.removesuffix("[]"), reading)
        return True
    if any(not is_empty(turn.get(key)) for key in TEXT_KEYS):
        return False
    leave(reading, path, turn, ())
    if turn:
        reading.name("turn-left-out", short(turn.get("type") or next(iter(turn)), 40))
    return True


def _read_pair(turn: dict[str, Any], pair: tuple[str, str], reading: Reading, path: str) -> None:
    if not missing(turn.get("system")) and turn["system"] != "":
        system = text_of(turn["system"], "a system prompt", "system", {}, reading, f"{path}.system")
        reading.messages.append({"role": "system", "content": system})
    for key, role in zip(pair, ("user", "assistant"), strict=True):
        message: Message = {"role": role, "content": ""}
        message["content"] = text_of(turn[key], f"the {key!r} of a turn", role, message, reading, f"{path}.{key}")
        reading.messages.append(message)
    if len(turn) > 2:
        leave(reading, path, turn, {*pair, "system", *WEIGHT_KEYS})
        weight = weight_of(turn, WEIGHT_KEYS, "a turn's")
        if weight is not None:
            reading.messages[-1]["weight"] = weight


def _read_turn(turn: dict[str, Any], keys: tuple[str, str], reading: Reading, path: str) -> None:
    name, value = turn.get(keys[0]), turn.get(keys[1])
    role = _role(name, keys[0], reading, path)
    if role == "leave out":
        return
    where = f"{path}.{keys[1]}"
    if role == "call":
        messages: list[Message] = [{"role": "assistant", "content": "", "tool_calls": calls_of(value, reading, where)}]
    elif isinstance(value, str):
        messages = [{"role": role, "content": value}]
        if role == "assistant" and value.startswith("<details "):
            _unfold(messages[0], reading)
    elif role == "system" and missing(value):
        messages = []
    else:
        messages = messages_of(value, f"the {keys[1]!r} of a turn by {short(name, 30)}", role, reading, where)
    if len(turn) > 2 or keys[1] not in turn:
        _read_extras(turn, keys, messages or [{"role": role}], reading, path)
    reading.messages += messages


def _unfold(message: Message, reading: Reading) -> None:
    """Take the folded block at the beginning of a reply for its reasoning."""
    found = _DETAILS.match(message["content"])
    if found is None:
        return
    lines = found[1].strip().splitlines()
    if lines and all(line.startswith("&gt;") for line in lines if line.strip()):
        lines = html.unescape("\n".join(lines)).splitlines()
    thought = "\n".join(line.removeprefix(">").removeprefix(" ") if line.startswith(">") else line for line in lines)
    message["content"] = message["content"][found.end() :]
    if thought.strip():
        message["reasoning_content"] = thought
    reading.name("reasoning-unfolded", "<details>")


def _role(name: Any, key: str, reading: Reading, path: str) -> str:
    role = reading.roles.get(name) if isinstance(name, str) else None
    if role is None:
        if isinstance(name, dict):
            inner = next((each for each in _NAMES if isinstance(name.get(each), str)), None)
            if inner is not None:
                leave(reading, f"{path}.{key}", name, {inner})
                return _role(name[inner], key, reading, path)
        if missing(name) or isinstance(name, (list, dict)):
            raise Unusable(f"a turn has no {key!r}")
        role = reading.roles.get(str(name).strip().lower())
    if role is None:
        raise Unusable(f"it has a turn of the unknown role {short(str(name), 40)!r}", "unknown-role")
    return role


def _read_extras(
    turn: dict[str, Any], keys: tuple[str, str], messages: list[Message], reading: Reading, path: str
) -> None:
    """What a turn holds beside its words, into the messages that it says; what is not used is noted."""
    replies = [message for message in messages if message["role"] == "assistant"]
    message = replies[-1] if replies else messages[-1]
    used = {*keys, *_read_marks(turn, replies, reading)}
    if replies:
        used |= _read_calls(turn, message, reading, path) | _read_thoughts(turn, message)
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str) and turn[key] and key not in message:
            message[key] = turn[key]
            used.add(key)
    if any(name in turn for name in TOOL_NAMES):
        used |= _read_tools(turn, reading, path)
    means = reading.roles.get(str(turn.get(keys[0])).strip().lower())
    if means is not None:  # other keys may name the same speaker again
        used |= {key for key in ROLE_KEYS if reading.roles.get(str(turn.get(key)).strip().lower()) == means}
    leave(reading, path, turn, used)


def _read_calls(turn: dict[str, Any], message: Message, reading: Reading, path: str) -> set[str]:
    key = next((key for key in _CALL_KEYS if turn.get(key) and not missing(turn[key])), None)
    if key is None or "tool_calls" in message:
        return set()
    message["tool_calls"] = calls_of(turn[key], reading, f"{path}.{key}")
    return {key}


def _read_thoughts(turn: dict[str, Any], message: Message) -> set[str]:
    for key in _THOUGHT_KEYS:
        thought = turn.get(key)
        if isinstance(thought, str) and thought.strip():
            before = message.setdefault("reasoning_content", thought)
            return {key} if before == thought else set()
        if isinstance(thought, (list, dict)) and thought:
            raise Unusable(f"the {key!r} of a turn is not text")
    return set()


def _read_tools(turn: dict[str, Any], reading: Reading, path: str) -> set[str]:
    """The functions that a turn offers, for the whole conversation: templates know no others."""
    before = set(reading.used)
    tools = tools_of(turn, reading)
    names = reading.used - before or {name for name in TOOL_NAMES if name in turn}
    reading.used = before
    if tools is None or reading.tools not in (None, tools):
        return set()
    reading.tools, reading.tools_path = tools, f"{path}.{next(iter(names))}"
    return names


def _read_marks(turn: dict[str, Any], replies: list[Message], reading: Reading) -> set[str]:
    """How much a turn counts in the loss."""
    used = set[str]()
    if len(replies) == 1 and not is_empty(turn.get(DETAIL_KEY)):
        used.add(DETAIL_KEY)
        replies[0] |= masked(turn[DETAIL_KEY], replies[0]["content"])
    if WEIGHT_KEYS.isdisjoint(turn):
        return used
    weight = weight_of(turn, WEIGHT_KEYS, "a turn's")
    if weight is not None and replies:
        for message in replies:
            message["weight"] = weight * message.get("weight", 1.0)
    elif weight:
        reading.notes.add("user-turn-marked")
    figure = "loss" in turn and turn["loss"] not in (True, False)
    return used | (WEIGHT_KEYS - {"loss"} if figure else WEIGHT_KEYS)
