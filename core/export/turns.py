"""What a chat template puts around each turn, found out by rendering conversations with it. Imports no torch.

Rendered with marks in the place of what is said, a conversation falls apart into the words between. Whether those are
all there is to the template is then proved on other conversations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.templates import TEMPLATE_ERRORS

Message = dict[str, str]
_SYSTEM, _ASKED, _SAID, _AGAIN = "§system§", "§first§", "§reply§", "§second§"


@dataclass(frozen=True)
class Turns:
    """The words between. `after_system` leads from a system prompt to the first question, which then has no `before`.

    `begin` stands before a conversation without a system prompt, `begin_system` before one; None where the template
    takes no system prompt. `to_reply` follows a question, `before_reply` comes after it where the reply is there
    already, `after_reply` follows a reply that is not the last.
    """

    begin: str
    before_question: str
    to_reply: str
    before_reply: str
    after_reply: str
    begin_system: str | None
    after_system: str

    def render(self, messages: list[Message]) -> str:
        """A conversation of turns that alternate, ready for a reply."""
        parts: list[str] = []
        told = False
        for index, message in enumerate(messages):
            if message["role"] == "system":
                parts += [self.begin_system or "", message["content"], self.after_system]
                told = True
            elif message["role"] == "user":
                before = "" if told else self.before_question
                parts += [self.begin if index == 0 else "", before, message["content"], self.to_reply]
                told = False
            else:
                parts += [self.before_reply, message["content"], self.after_reply]
        return "".join(parts)


def find_turns(tokenizer: Any) -> Turns | None:
    """The turns of the tokenizer's chat template; None where it is not made of such, or changes what is said."""
    plain = _rendered(tokenizer, [_user(_ASKED), _reply(_SAID), _user(_AGAIN)])
    first = _rendered(tokenizer, [_user(_ASKED)])
    if plain is None or first is None or any(plain.count(mark) != 1 for mark in (_ASKED, _SAID, _AGAIN)):
        return None
    begin, rest = plain.split(_ASKED)
    to_said, rest = rest.split(_SAID)
    between, to_reply = rest.split(_AGAIN)
    if not to_said.startswith(to_reply):
        return None
    before = _common_end(begin, between)
    begin, after_reply = begin.removesuffix(before), between.removesuffix(before)
    begin_system, after_system = _system(tokenizer)
    turns = Turns(begin, before, to_reply, to_said.removeprefix(to_reply), after_reply, begin_system, after_system)
    return turns if _holds(tokenizer, turns) else None


def _system(tokenizer: Any) -> tuple[str | None, str]:
    text = _rendered(tokenizer, [{"role": "system", "content": _SYSTEM}, _user(_ASKED)])
    if text is None or text.count(_SYSTEM) != 1 or text.count(_ASKED) != 1 or text.index(_SYSTEM) > text.index(_ASKED):
        return None, ""
    begin, rest = text.split(_SYSTEM)
    return begin, rest.split(_ASKED)[0]


def _holds(tokenizer: Any, turns: Turns) -> bool:
    talk = [_user("Hello,  you!"), _reply("Hi.\nWho is there?"), _user("Me"), _reply("Ah."), _user("Good day")]
    talks = [talk[:1], talk]
    if turns.begin_system is not None:
        talks += [[{"role": "system", "content": "Be brief."}, *each] for each in talks]
    return all(_rendered(tokenizer, each) == turns.render(each) for each in talks)


def _rendered(tokenizer: Any, messages: list[Message]) -> str | None:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TEMPLATE_ERRORS:
        return None


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _common_end(one: str, other: str) -> str:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return one[len(one) - length :]
