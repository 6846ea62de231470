"""What a chat template puts around each turn, found out by rendering conversations with it. Imports no torch.

Rendered with marks in the place of what is said, a conversation falls apart into the words between. Whether those are
all there is to the template is then proved on other conversations. Today's date is a mark too: where the template asks
for it, the words between hold the form in which it does, `DATE.format("%d %b %Y")`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from core.untrusted.chat_templates import TEMPLATE_ERRORS

Message = dict[str, str]
_SYSTEM, _ASKED, _SAID, _AGAIN = "§system§", "§first§", "§reply§", "§second§"
_THOUGHT = "§thought§"
_PADS = "\n \n", "\n \n"
DATE = "\ue000{}\ue001"
# In the place of transformers' own, which would write today's date.
_CLOCK = "{%- macro strftime_now(form) -%}\ue000{{ form }}\ue001{%- endmacro -%}"
_DATES = re.compile("\ue000(.*?)\ue001", re.DOTALL)


class NoTurns(Exception):
    """Why a template is not made of plain turns, as the end of a sentence that begins with "its chat template"."""


@dataclass(frozen=True)
class Cut:
    """What is taken off what is said: white space, or line feeds alone, at its start, its end, or both."""

    start: bool
    end: bool
    lines_only: bool

    def of(self, text: str) -> str:
        """`text` without it."""
        letters = "\n" if self.lines_only else None
        text = text.lstrip(letters) if self.start else text
        return text.rstrip(letters) if self.end else text


_CUTS = [
    Cut(start, end, lines) for lines in (False, True) for start, end in ((True, True), (True, False), (False, True))
]


@dataclass(frozen=True)
class Turns:
    """The words between what is said.

    `first` stands before the first question of a conversation without a system prompt, `before_question` before later
    ones. `begin_system` stands before a system prompt, None where the template takes none, and `after_system` leads
    from it to the first question. `to_reply` follows the last question, `to_said` one whose reply is there already,
    `after_reply` a reply that is not the last. What a role in `cuts` says loses white space at its ends, and earlier
    replies lose the thoughts in them where it `drops_thoughts`.
    """

    first: str
    before_question: str
    to_reply: str
    to_said: str
    after_reply: str
    begin_system: str | None
    after_system: str
    cuts: dict[str, Cut] = field(default_factory=dict)
    drops_thoughts: bool = False

    def render(self, messages: list[Message]) -> str:
        """A conversation of turns that alternate, ready for a reply; dates as marks."""
        parts: list[str] = []
        before = self.first
        for index, message in enumerate(messages):
            role, said = message["role"], message["content"]
            said = self.cuts[role].of(said) if role in self.cuts else said
            if role == "system":
                parts += [self.begin_system or "", said]
                before = self.after_system
            elif role == "user":
                parts += [before, said, self.to_said if index + 1 < len(messages) else self.to_reply]
            else:
                parts += [said, self.after_reply]
                before = self.before_question
        return "".join(parts)

    @property
    def literals(self) -> tuple[str, ...]:
        """All of them."""
        own = (self.first, self.before_question, self.to_reply, self.to_said, self.after_reply, self.after_system)
        return (*own, self.begin_system or "")


def pieces(text: str) -> list[tuple[str, str]]:
    """`text` as ("text", …) and ("date", form of strftime) in their order."""
    parts = _DATES.split(text)
    found = [("date" if number % 2 else "text", part) for number, part in enumerate(parts)]
    return [(kind, part) for kind, part in found if part]


def find_turns(tokenizer: Any) -> Turns:
    """The turns of the tokenizer's chat template. Raises NoTurns where it is not made of such.

    A template may take what is said as text or, as those for pictures do, in parts only.
    """
    try:
        return _Finder(tokenizer, in_parts=False).turns()
    except NoTurns as error:
        try:
            return _Finder(tokenizer, in_parts=True).turns()
        except NoTurns:
            raise error from None


class _Finder:
    def __init__(self, tokenizer: Any, in_parts: bool) -> None:
        self.tokenizer, self.in_parts = tokenizer, in_parts
        own = tokenizer.chat_template
        self.template = _CLOCK + own if isinstance(own, str) and "strftime_now" in own else None  # None: its own

    def turns(self) -> Turns:
        plain, alone = self.rendered([_user(_ASKED), _reply(_SAID), _user(_AGAIN)]), self.rendered([_user(_ASKED)])
        if plain is None or alone is None:
            raise NoTurns("refuses a plain conversation")
        if any(plain.count(mark) != 1 for mark in (_ASKED, _SAID, _AGAIN)) or alone.count(_ASKED) != 1:
            raise NoTurns("changes, repeats or omits some of the text")
        first, rest = plain.split(_ASKED)
        to_said, rest = rest.split(_SAID)
        between, to_reply = rest.split(_AGAIN)
        before = _common_end(first, between, self.tokenizer.get_added_vocab())
        begin_system, after_system = self.system()
        cuts = self.cuts(begin_system is not None)
        after_reply = between.removesuffix(before)
        drops = self.drops_thoughts()
        turns = Turns(first, before, to_reply, to_said, after_reply, begin_system, after_system, cuts, drops)
        self.prove(turns)
        return turns

    def system(self) -> tuple[str | None, str]:
        """What stands before and after a system prompt."""
        text = self.rendered([{"role": "system", "content": _SYSTEM}, _user(_ASKED)])
        if text is None or text.count(_SYSTEM) != 1 or text.count(_ASKED) != 1:
            return None, ""
        begin, rest = text.split(_SYSTEM)
        return (begin, rest.split(_ASKED)[0]) if _ASKED in rest else (None, "")

    def cuts(self, takes_system: bool) -> dict[str, Cut]:
        """By role; one that is not made of such cuts is left out, and shows in the proof."""
        conversation = [_user(_ASKED), _reply(_SAID), _user(_AGAIN)]
        conversation = [{"role": "system", "content": _SYSTEM}, *conversation] if takes_system else conversation
        plain, found = self.rendered(conversation) or "", {}
        for index, message in enumerate(conversation[:-1]):
            mark = message["content"]
            padded = _PADS[0] + mark + _PADS[1]
            said = self.rendered([*conversation[:index], {**message, "content": padded}, *conversation[index + 1 :]])
            cut = next((each for each in _CUTS if said == plain.replace(mark, each.of(padded))), None)
            if cut is not None:
                found[message["role"]] = cut
        return found

    def drops_thoughts(self) -> bool:
        """Whether thoughts in a reply that is not the last are left out."""
        thinking = f"<think>\n{_THOUGHT}\n</think>\n\n{_SAID}"
        text = self.rendered([_user(_ASKED), _reply(thinking), _user(_AGAIN)])
        return text is not None and _THOUGHT not in text and text.count(_SAID) == 1

    def prove(self, turns: Turns) -> None:
        """Raises NoTurns where other conversations are laid out otherwise than the turns say."""
        conversation = [
            _user("Hello,  you!"),
            _reply("Hi.\nWho is there?"),
            _user("Me"),
            _reply("Ah."),
            _user("Good day"),
        ]
        padded = [{**each, "content": f"\n {each['content']} \n"} for each in conversation]
        system = {"role": "system", "content": "Be brief."}
        for each, what in (
            (conversation[:1], "renders a single prompt differently from longer conversations"),
            (conversation, "renders longer conversations differently from short ones"),
            (padded, "trims text in a way that cannot be converted"),
        ):
            if self.rendered(each) != turns.render(each):
                raise NoTurns(what)
            told = [system, *each]
            if turns.begin_system is not None and self.rendered(told) != turns.render(told):
                raise NoTurns("moves the system prompt in longer conversations")

    def rendered(self, messages: list[Message]) -> str | None:
        """Ready for a reply; None where the template refuses."""
        given: list[Any] = list(messages)
        if self.in_parts:
            given = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                given, chat_template=self.template, tokenize=False, add_generation_prompt=True
            )
        except TEMPLATE_ERRORS:
            return None
        return str(text)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _common_end(one: str, other: str, tokens: Iterable[str]) -> str:
    """The longest end of both that begins at a border of both: not within one of the `tokens`, nor within a date."""
    wholes = sorted((re.escape(token) for token in tokens if token), key=len, reverse=True)
    border = re.compile("|".join([*wholes, _DATES.pattern, "."]), re.DOTALL)
    first, second = ([found[0] for found in border.finditer(text)] for text in (one, other))
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return "".join(first[len(first) - length :])
