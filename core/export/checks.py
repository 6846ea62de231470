"""Holds a program that opened an export against the run's own chat and training: texts and tokens, without a model.

Each thing that is compared is a check, with a line of its own for a person. Where the export makes other texts or
tokens than the chat, it is refused; where training itself did not do what the chat asks for, that is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any, TypeVar

from core.data.conversation import Message
from core.data.layout import Layout
from core.export.readers.reader import CannotRender, Reader
from core.export.reference import Reference
from core.export.talks import Talk

PROMPTS, WHOLE = "prompts as text", "whole conversations as trained"
GOES_ON, TOKENS = "training goes on from the prompt", "token ids"
SHOWN, ANEW = 40, 3
Say = Callable[[str, float | None], None]
Result = TypeVar("Result")


@dataclass
class Check:
    """One thing compared `of` times, `equal` of them the same. `because` says what was not, or not compared.

    `broken` is why the export may not be handed over.
    """

    name: str
    by: str
    of: int = 0
    equal: int = 0
    because: str = ""
    broken: str = field(default="", repr=False)

    def as_json(self) -> dict[str, Any]:
        """For `verified.checks`."""
        return {"name": self.name, "by": self.by, "of": self.of, "equal": self.equal, "because": self.because}

    def compare(self, own: Any, other: Any, what: str, breaks: bool = True) -> None:
        """Count one comparison of `own`, the chat's, with `other`, the export's; `what` is compared, for a person."""
        self.of += 1
        if own == other:
            self.equal += 1
            return
        told = f"{what}: {first_difference(own, other)}"
        self.because = self.because or told
        if breaks:
            self.broken = self.broken or told


def first_difference(own: Any, other: Any) -> str:
    """Where two texts, or two lists of tokens, part, and what stands there in both, shortened; None is a refusal."""
    if own is None or other is None:
        refuses, takes = ("the chat", "the export") if own is None else ("the export", "the chat")
        return f"{refuses} cannot lay it out, and {takes} can"
    if isinstance(own, str) and isinstance(other, str):
        at = len(commonprefix([own, other]))
        here, there = (_quoted(text[at : at + SHOWN], at + SHOWN < len(text)) for text in (own, other))
        return f"at character {at:,} the chat has {here}, the export {there}"
    at = next(
        (n for n, (one, two) in enumerate(zip(own, other, strict=False)) if one != two), min(map(len, (own, other)))
    )
    here, there = (str(ids[at : at + 5]) if at < len(ids) else "nothing more" for ids in (own, other))
    return f"at token {at:,} the chat has {here}, the export {there}"


def _quoted(text: str, goes_on: bool) -> str:
    return (json.dumps(text, ensure_ascii=False) + "…" * goes_on) if text else "nothing more"


@dataclass
class _Texts:
    """All checks of texts and tokens, in the order in which they are told."""

    prompts: Check
    whole: Check
    goes_on: Check
    tokens: Check

    def all(self) -> list[Check]:
        return [self.prompts, self.whole, self.goes_on, self.tokens]


def hold_texts(reference: Reference, reader: Reader, talks: list[Talk], say: Say) -> list[Check]:
    """Lay out and split every conversation in both, and compare. A shape that neither takes is said, not counted."""
    found = _Texts(*(Check(name, reader.name) for name in (PROMPTS, WHOLE, GOES_ON, TOKENS)))
    refused: dict[str, str] = {}
    for number, talk in enumerate(talks, 1):
        _hold(reference, reader, talk, found, refused)
        say(f"Laying conversations out in {reader.name}: {number} of {len(talks)}", number / len(talks))
    added = reference.added_tokens
    found.tokens.compare(reference.tokens(added), reader.tokens(added), "the added tokens")
    told = [f"{shape}: this template takes none ({why})" for shape, why in refused.items()]
    found.prompts.because = "; ".join(filter(None, [found.prompts.because, *told]))
    return found.all()


def _hold(reference: Reference, reader: Reader, talk: Talk, found: _Texts, refused: dict[str, str]) -> None:
    if talk.text is not None:
        text = reference.trained(talk).text
        found.tokens.compare(reference.tokens(text), reader.tokens(text), talk.name)
        return
    messages, layout = reference.shaped(talk.messages), _or_none(lambda: reference.trained(talk))
    for upto in replies_of(talk):
        own, other = _both(reference, reader, messages[:upto], talk.tools, True)
        if own is None and other is None:
            refused.setdefault(talk.shape, _why(reference, messages[:upto], talk.tools))
            continue
        found.prompts.compare(own, other, f"the prompt of {talk.name}")
        if own is not None and other is not None:
            _, ids = reference.prompt(messages[:upto], talk.tools)
            found.tokens.compare(ids, reader.tokens(other), f"the prompt of {talk.name}")
            if layout is not None:
                _goes_on(found.goes_on, layout, upto, other, talk.name)
    _hold_whole(reference, reader, talk, messages, layout, found)


def _hold_whole(
    reference: Reference, reader: Reader, talk: Talk, messages: list[Message], layout: Layout | None, found: _Texts
) -> None:
    """The whole conversation, as the chat's template and as training lay it out; no prompt stands at its end."""
    own, other = _both(reference, reader, messages, talk.tools, False)
    if other is None and own is None:
        return
    if own is not None and other is not None:
        found.tokens.compare(reference.tokens(own), reader.tokens(other), f"the whole of {talk.name}")
    trained = layout.text if layout is not None else own
    found.whole.compare(trained, other, f"the whole of {talk.name}", breaks=own != other)


def _goes_on(check: Check, layout: Layout, upto: int, prompt: str, name: str) -> None:
    """Whether the text trained on begins with the prompt, and what is trained begins where the prompt ends."""
    own = [span.start for span in layout.spans if span.message == upto]
    unknown = any(span.message is None for span in layout.spans)
    if not own and not unknown:  # this reply is not trained on
        return
    check.of += 1
    start = own[0] if own else len(prompt)
    if layout.text.startswith(prompt) and start == len(prompt):
        check.equal += 1
    elif not check.because:
        before = layout.text[:start] if own else layout.text
        check.because = f"{name}: {first_difference(before, prompt)}".replace("the chat has", "what was trained has")


def _both(
    reference: Reference, reader: Reader, messages: list[Message], tools: list[dict[str, Any]] | None, prompt: bool
) -> tuple[str | None, str | None]:
    """The texts of both, None where one refuses; again where the clock may have moved on between them."""
    for _ in range(ANEW):
        own = _or_none(lambda: reference.rendered(messages, tools, prompt))
        other = _or_none(lambda: reader.rendered(messages, tools, prompt))
        if own == other or not reference.is_dated:
            break
    return own, other


def _or_none(make: Callable[[], Result]) -> Result | None:
    try:
        return make()
    except CannotRender:
        return None


def _why(reference: Reference, messages: list[Message], tools: list[dict[str, Any]] | None) -> str:
    try:
        reference.rendered(messages, tools)
    except CannotRender as error:
        return str(error)
    return "it now takes it"


def replies_of(talk: Talk) -> list[int]:
    """Where the first and the last reply stand that something was said before; the end, where there is no reply."""
    replies = [at for at, message in enumerate(talk.messages) if message["role"] == "assistant" and at > 0]
    return sorted({replies[0], replies[-1]}) if replies else [len(talk.messages)]
