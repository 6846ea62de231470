"""Plain text with its turns marked inside it: Guanaco's `### Human:`, Llama-2's `[INST]`, ChatML, `Human:`."""

from __future__ import annotations

import re

from core.data.conversation import Message, Row
from core.data.formats.reading import Layout, Reading, Unusable, blank
from core.data.formats.turn import ROLES, add_system

TEXT_NAMES = ("text", "content", "document", "body", "chat", "conversation", "sample")
_HASHES = re.compile(r"### ?(Human|User|Instruction|Input|Assistant|Response|Gpt|System):")
_PLAIN = re.compile(r"(?:^|\n)[ \t]*(Human|User|Assistant|HUMAN|USER|ASSISTANT):")
_CHATML = re.compile(r"<\|im_start\|>([^\n]{0,40})\n(.*?)(?:<\|im_end\|>|\Z)\s*", re.DOTALL)
_INST = re.compile(r"(</?s>|\[/?INST\])")
_SYS = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)
_SPEAKERS = {"human": "user", "user": "user", "instruction": "user", "input": "input", "system": "system"}


def split_text(text: str) -> tuple[str, list[Message]] | None:
    """The markers found and the turns between them, or None where it is not sure: the speakers have to take turns."""
    if "<|im_start|>" in text:
        found = _split_chatml(text)
        return ("ChatML", found) if found else None
    if "[INST]" in text:
        found = _split_llama(text)
        return ("`[INST]`", found) if found else None
    if "###" in text:
        found = _split_marks(_HASHES, text, head=True)
        if found:
            return "`### Human:` / `### Assistant:`", found
    found = _split_marks(_PLAIN, text, head=False) if "assistant:" in text.lower() else None
    return ("`Human:` / `Assistant:`", found) if found else None


def text_column(row: Row) -> str | None:
    """The first of the usual columns that holds plain text."""
    return next((name for name in TEXT_NAMES if isinstance(row.get(name), str) and not blank(row[name])), None)


def _split_marks(mark: re.Pattern[str], text: str, head: bool) -> list[Message] | None:
    """Turns between marks; what stands before the first one is the system prompt, if `head` allows there any."""
    parts = mark.split(text)
    lead, names, said = parts[0].strip(), parts[1::2], parts[2::2]
    messages: list[Message] = [{"role": "system", "content": lead}] if lead else []
    if lead and not head:
        return None
    for name, words in zip(names, said, strict=True):
        role = _SPEAKERS.get(name.lower(), "assistant")
        if role == "input" and messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += f"\n\n{words.strip()}"
        else:
            messages.append({"role": "user" if role == "input" else role, "content": words.strip()})
    return messages if _take_turns(messages) else None


def _split_chatml(text: str) -> list[Message] | None:
    messages: list[Message] = []
    at = 0
    for found in _CHATML.finditer(text):
        role = ROLES.get(found[1].strip().lower())
        if text[at : found.start()].strip() or role not in ("system", "user", "assistant", "tool"):
            return None
        messages.append({"role": role, "content": found[2].strip()})
        at = found.end()
    whole = not text[at:].strip() and not any("<|im_" in message["content"] for message in messages)
    return messages if whole and _take_turns(messages) else None


def _split_llama(text: str) -> list[Message] | None:
    lead, *rest = _INST.split(text)
    messages: list[Message] = []
    for mark, words in zip(rest[::2], rest[1::2], strict=True):
        if mark == "[/INST]":
            messages.append({"role": "assistant", "content": words.strip()})
        elif mark == "[INST]":
            system = None if messages else _SYS.fullmatch(words)
            if system:
                messages.append({"role": "system", "content": system[1].strip()})
            messages.append({"role": "user", "content": (system[2] if system else words).strip()})
        elif not blank(words):
            return None
    return messages if blank(lead) and _take_turns(messages) else None


def _take_turns(messages: list[Message]) -> bool:
    """Whether it is question, reply, question, reply …, after at most one system prompt, with at least one reply."""
    roles = [message["role"] for message in messages]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    return len(talk) > 1 and all(role == ("user", "assistant")[index % 2] for index, role in enumerate(talk))


def _guanaco_sign(row: Row) -> str | None:
    name = text_column(row)
    found = split_text(row[name]) if name else None
    return f"`{name}` holds {found[0]} turns" if found else None


def _read_guanaco(row: Row, reading: Reading) -> None:
    name = text_column(row)
    if name is None:
        raise Unusable("it has no text")
    found = split_text(row[name])
    if found is None:
        raise Unusable(f"in its {name!r} the speakers do not take turns by marks such as '### Human:'")
    reading.used.add(name)
    reading.messages.extend(found[1])
    add_system(row, reading)


def _text_sign(row: Row) -> str | None:
    name = text_column(row)
    return f"`{name}` holds plain text" if name and split_text(row[name]) is None else None


def _read_text(row: Row, reading: Reading) -> None:
    name = text_column(row)
    if name is None:
        empty = any(isinstance(row.get(each), str) for each in TEXT_NAMES)
        raise Unusable("its text is empty" if empty else "it has no text")
    reading.used.add(name)
    reading.text = row[name]


GUANACO = Layout("guanaco", _guanaco_sign, _read_guanaco)
TEXT = Layout("text", _text_sign, _read_text)
