"""What a chat template does to a conversation: replies it changes, content it leaves out."""

import json
import re
from collections.abc import Iterator
from typing import Any

from core.data.check.findings import RULES
from core.data.conversation import Conversation, Finding, Message
from core.data.findings import Hits
from core.data.formats.weights import DETAIL_KEY
from core.data.rendering.chat_template import once_reasoned
from core.data.rendering.template import TextLayout

_WORD = re.compile(r"\w+", re.ASCII)
_SHORTEST_PIECE = 3
_REPLY_WORD = re.compile(r"\w{3,}")
_GONE = "gone"
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>")
# How a chat asks, where it is not as the model's makers wrote it, and what is said of it.
_ASKED = {"fitted": "prompt-fitted", "continued": "prompt-continued", "otherwise": "prompt-unanswered"}


class LayoutLint:
    """Compares each conversation with what the template made of it."""

    def __init__(self, dropped_prompt: str = "") -> None:
        self.hits = Hits(RULES)
        self._prompt = f"`{json.dumps(dropped_prompt, ensure_ascii=False)[1:-1]}`"

    def add(self, conversation: Conversation, layouts: list[TextLayout]) -> None:
        """Look at one conversation and its layouts, those of a chat."""
        row = conversation.row
        text = "\n".join(layout.text for layout in layouts)
        for message in conversation.messages:
            if message["role"] == "system" and not _holds(text, message["content"]):
                self.hits.add("system-dropped", row)
        for what in sorted(set(_left_out(conversation, text))):
            self.hits.add("content-dropped", row, what)
        for how in sorted(set(_changes(conversation.messages, layouts))):
            self.hits.add("reply-dropped" if how == _GONE else "reply-changed", row, how)
        if any(_reasons_twice(message) for message in conversation.messages):
            self.hits.add("reasoned-twice", row)
        if layouts[0].asked != "as it is":
            self.hits.add(_ASKED[layouts[0].asked], row, self._prompt)
        if len(layouts) > 1:
            self.hits.add("turns-apart", row)

    def findings(self, among: str = "") -> list[Finding]:
        """Everything found."""
        counted = ("content-dropped", "reply-changed")
        others = ("reply-dropped", "system-dropped", "reasoned-twice", "turns-apart", *_ASKED.values())
        found = (self.hits.finding(code, among, counted=code in counted) for code in (*counted, *others))
        return list(filter(None, found))


def _reasons_twice(message: Message) -> bool:
    return bool(message.get("reasoning_content")) and "</think>" in once_reasoned(message)["content"]


def _left_out(conversation: Conversation, text: str) -> Iterator[str]:
    """What the layout does not hold, in words."""
    for tool in conversation.tools or []:
        if not _holds_piece(text, _name_of(tool)):
            yield "descriptions of tools"
    for message in conversation.messages:
        for call in message.get("tool_calls") or []:
            if not _holds_piece(text, _name_of(call)):
                yield "tool calls"
        if not _holds(text, once_reasoned(message).get("reasoning_content") or ""):
            yield "reasoning"
        if message["role"] != "tool" and not _holds_piece(text, message.get("name") or ""):
            yield "names of speakers"
        if message["role"] in ("user", "tool") and not _holds(text, message["content"]):
            yield "tool turns" if message["role"] == "tool" else "questions"


def _name_of(tool: dict[str, Any]) -> str:
    """The name in a tool or a tool call, with or without the envelope `function`."""
    inner = tool.get("function", tool)
    return str(inner.get("name") or "") if isinstance(inner, dict) else str(inner)


def _holds(text: str, content: str) -> bool:
    """Whether a text stands in the layout, be it trimmed, or written as JSON."""
    wanted = content.strip()
    if not wanted or wanted in text:
        return True
    if json.dumps(wanted, ensure_ascii=False)[1:-1] in text or json.dumps(wanted)[1:-1] in text:
        return True
    if all(line.strip() in text for line in wanted.splitlines()):
        return True
    # JSON in another spelling is no loss: all its words are there.
    return wanted[0] in "{[" and all(word in text for word in _WORD.findall(wanted))


def _holds_piece(text: str, content: str) -> bool:
    """Whether the longest word of a short content stands in the layout; too short a word proves nothing."""
    piece = max(_WORD.findall(content), key=len, default="")
    return len(piece) < _SHORTEST_PIECE or piece in text


def _changes(messages: list[Message], layouts: list[TextLayout]) -> Iterator[str]:
    """How the layouts' replies differ from the data's, in words."""
    rendered: dict[int, str] = {}
    for layout in layouts:
        for span in layout.spans:
            if span.message is not None:
                rendered[span.message] = rendered.get(span.message, "") + layout.text[span.start : span.end]
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        shown, reply = rendered.get(index, layouts[-1].text), once_reasoned(message)["content"]
        if DETAIL_KEY in message:  # its span is in pieces
            shown = layouts[-1].text
        if reply not in shown:
            yield "white space at both ends is trimmed" if reply.strip() in shown else _change(reply, shown)
        if index in rendered and _EMPTY_THOUGHT.search(shown) and not _EMPTY_THOUGHT.search(reply):
            yield "an empty think block is added before it"


def _change(reply: str, shown: str) -> str:
    words = _REPLY_WORD.findall(reply)
    if words and not any(word in shown for word in words):
        return _GONE
    if "</think>" in reply:
        return "its reasoning is removed"
    return "its text is changed"
