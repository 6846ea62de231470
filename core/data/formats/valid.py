"""What makes a conversation usable: a reply to learn, something before it, and nothing after the last."""

from itertools import pairwise
from typing import Literal

from core.data.conversation import Message
from core.data.formats.row_reading import Reading, Unusable, blank

System = Literal["keep", "into_question", "leave_out"]


def valid_text(reading: Reading) -> str:
    """The plain text of a row for continued pre-training. Raises Unusable."""
    text = reading.text or ""
    if blank(text):
        raise Unusable("its text is empty")
    if reading.weight == 0:
        raise Unusable("its weight is 0, so it is not trained on")
    if reading.weight != 1:
        reading.notes.add("weight-left-out")
    if "\0" in text:
        reading.notes.add("nul-character")
    return text


def valid_messages(reading: Reading, system: System, join: bool = False) -> list[Message]:
    """The messages up to the last reply that is trained on, each reply with its weight. Raises Unusable.

    With `join`, turns of one speaker in a row become one. Notes in `reading` what a person should know of them.
    """
    messages = reading.messages if system == "keep" else without_system(reading.messages, system)
    if join:
        apart, messages = messages, joined(messages)
        if len(messages) < len(apart):
            reading.notes.add("turns-joined")
    last = _weigh(messages, reading)
    if not any(message["role"] != "assistant" and not blank(message["content"]) for message in messages[:last]):
        raise Unusable("it has no prompt before the reply")
    kept = messages[: last + 1]
    if len(kept) < len(messages):
        reading.notes.add("after-last-reply")
    _note_order(kept, reading)
    return kept


def _weigh(messages: list[Message], reading: Reading) -> int:
    """Give each reply its weight, none to an empty one; where the last one stands that counts. Raises Unusable."""
    last, replies, filled = -1, 0, 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        replies += 1
        weight = message.pop("weight", 1.0) * reading.weight
        if blank(message["content"]) and "tool_calls" not in message:
            reading.notes.add("empty-reply")
            weight = 0.0
        else:
            filled += 1
        if weight != 1.0:
            message["weight"] = weight
        if weight > 0:
            last = index
    if last < 0:
        if not replies:
            raise Unusable("it has no reply to learn from")
        raise Unusable("none of its replies is marked for training" if filled else "its reply is empty")
    return last


def _note_order(messages: list[Message], reading: Reading) -> None:
    roles = [message["role"] for message in messages]
    if any(role == before != "tool" for role, before in pairwise(roles)):
        reading.notes.add("same-role-twice")
    if next((role for role in roles if role != "system"), None) == "assistant":
        reading.notes.add("assistant-first")
    if any("\0" in message["content"] for message in messages):
        reading.notes.add("nul-character")


def joined(messages: list[Message]) -> list[Message]:
    """The messages with those of one speaker in a row as one, a blank line between what they say.

    What calls a tool or answers for one stays by itself, and so do replies that count differently.
    """
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else None
        if before is not None and _beside_text(before) == _beside_text(message) is not None:
            texts = [text for text in (before["content"], message["content"]) if not blank(text)]
            found[-1] = {**before, "content": "\n\n".join(texts)}
        else:
            found.append(message)
    return found


def _beside_text(message: Message) -> tuple[str, str | None, float] | None:
    """Who speaks, and how much it counts; None where there is more to a message, which would be lost."""
    if message["role"] == "tool" or not message.keys() <= {"role", "content", "name", "weight"}:
        return None
    return message["role"], message.get("name"), message.get("weight", 1.0)


def without_system(messages: list[Message], system: System) -> list[Message]:
    """The messages with each system prompt left out, or put into the next question (where none follows: the last)."""
    if not any(message["role"] == "system" for message in messages):
        return messages
    asks = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if system == "into_question" and not asks:
        return [message | {"role": "user"} if message["role"] == "system" else message for message in messages]
    folded = {index: [messages[index]["content"]] for index in asks}
    for index, message in enumerate(messages if system == "into_question" else []):
        if message["role"] == "system":
            following = next((ask for ask in asks if ask > index), None)
            if following is None:
                folded[asks[-1]].append(message["content"])
            else:
                folded[following].insert(-1, message["content"])
    return [
        message | {"content": "\n\n".join(text for text in folded[index] if not blank(text))}
        if len(folded.get(index, ())) > 1
        else message
        for index, message in enumerate(messages)
        if message["role"] != "system"
    ]
