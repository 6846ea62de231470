"""Plain text with its turns marked inside it: Guanaco's `### Human:`, Llama-2's `[INST]`, ChatML, `Human:`."""

import re

from core.data.conversation import Message, Row
from core.data.formats.row_reading import DatasetLayout, Reading, Unusable, blank
from core.data.formats.template_text import split_family, without_end
from core.data.formats.turn import add_system

TEXT_NAMES = ("text", "content", "document", "body", "chat", "conversation", "sample")
_HASHED = "Human|User|Instruction|Input|Assistant|Response|Gpt|System"
# With a colon, or, where that gives no turns, at the end of a line.
_HASHES = (re.compile(rf"### ?({_HASHED}):"), re.compile(rf"### ?({_HASHED})(?=\n)"))
_PLAIN = re.compile(r"(?:^|\n)[ \t]*(Human|User|Assistant|HUMAN|USER|ASSISTANT|FUNCTION RESPONSE):")
# Within a line, after a sentence about the two.
_VICUNA = re.compile(r"(?:^|\s|(?<=</s>))(USER|ASSISTANT): ?")
_BEFORE = re.compile(r"\A(?:<s>|<bos>|<\|begin_of_text\|>|\s)*")
_INST = re.compile(r"(</?s>|\[/?INST\]|\[/?SYSTEM_PROMPT\])")
_SYS = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)
_SPEAKERS = {"human": "user", "user": "user", "instruction": "user", "input": "input", "system": "system",
             "function response": "tool"}  # fmt: skip


def split_text(text: str) -> tuple[str, list[Message]] | None:
    """The markers found and the turns between them, or None where it is not sure: the speakers have to take turns."""
    found = split_family(text) if "<" in text or "[|" in text or "GPT4" in text else None
    if found is not None:
        return found
    if "[INST]" in text:
        turns = _split_llama(text)
        return ("`[INST]`", turns) if turns else None
    if "###" in text:
        turns = next(filter(None, (_split_marks(mark, text, head=True) for mark in _HASHES)), None)
        if turns:
            return "`### Human:` / `### Assistant:`", turns
    if "assistant:" not in text.lower():
        return None
    turns = _split_marks(_PLAIN, text, head=False)
    if not turns and (text.startswith("A chat between") or "</s>" in text):
        turns = _split_marks(_VICUNA, text, head=True)
    return ("`Human:` / `Assistant:`", turns) if turns else None


def text_column(row: Row) -> str | None:
    """The first of the usual columns that holds plain text."""
    return next((name for name in TEXT_NAMES if isinstance(row.get(name), str) and not blank(row[name])), None)


def _split_marks(mark: re.Pattern[str], text: str, head: bool) -> list[Message] | None:
    """Turns between marks; what stands before the first one is the system prompt, if `head` allows there any."""
    parts = mark.split(text)
    lead = _BEFORE.sub("", parts[0]).strip()
    if lead and not head:
        return None
    messages: list[Message] = [{"role": "system", "content": lead}] if lead else []
    for name, words in zip(parts[1::2], parts[2::2], strict=True):
        role = _SPEAKERS.get(name.lower(), "assistant")
        if role == "input" and messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += f"\n\n{words.strip()}"
        else:
            messages.append({"role": "user" if role == "input" else role, "content": without_end(words).strip()})
    return messages if _take_turns(messages) else None


def _split_llama(text: str) -> list[Message] | None:
    lead, *rest = _INST.split(text)
    messages: list[Message] = []
    for mark, words in zip(rest[::2], rest[1::2], strict=True):
        if mark == "[/INST]":
            messages.append({"role": "assistant", "content": words.strip()})
        elif mark == "[INST]":
            system = None if messages else _SYS.fullmatch(words)  # V3 has [SYSTEM_PROMPT] before it instead
            if system:
                messages.append({"role": "system", "content": system[1].strip()})
            messages.append({"role": "user", "content": (system[2] if system else words).strip()})
        elif mark == "[SYSTEM_PROMPT]" and not messages:
            messages.append({"role": "system", "content": words.strip()})
        elif not blank(words):
            return None
    return messages if blank(lead) and _take_turns(messages) else None


def _take_turns(messages: list[Message]) -> bool:
    """Whether it is question, reply, question, reply …, after at most one system prompt, with at least one reply.

    A tool may answer after a reply, and another reply then follows.
    """
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    asked = [role for at, role in enumerate(turns) if role != "tool" and (at == 0 or turns[at - 1] != "tool")]
    answered = all(turns[at - 1 : at + 2 : 2] == ["assistant"] * 2 for at, role in enumerate(turns) if role == "tool")
    return len(asked) > 1 and answered and all(role == ("user", "assistant")[at % 2] for at, role in enumerate(asked))


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
        raise Unusable(f"its {name!r} has no alternating speaker markers such as '### Human:'")
    reading.used.add(name)
    reading.messages.extend(found[1])
    add_system(row, reading)
    first = reading.messages[0]
    if first["role"] == "system":  # Glaive writes the speaker there, too
        first["content"] = first["content"].removeprefix("SYSTEM: ")


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


GUANACO = DatasetLayout("guanaco", "Turns marked in one text (### Human, <|im_start|>)", _guanaco_sign, _read_guanaco)
TEXT = DatasetLayout("text", "Plain text", _text_sign, _read_text, "text")
