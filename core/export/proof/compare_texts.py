"""Holds a program that opened an export against the run's own chat and training: texts and tokens, without a model.

Where the export makes other texts or tokens than the chat, it is refused; where training itself did not do what the
chat asks for, that is told, and is no fault of the export.
"""

from __future__ import annotations

from typing import Any

from core.data.conversation import Message
from core.data.rendering.template import TextLayout
from core.export.proof.checks import ProofCheck
from core.export.proof.conversations import ONE_TURN, ProofConversation
from core.export.proof.readers.reader import CannotRender, Reader
from core.export.proof.reference import Reference
from core.export.shared.options import Say

PROMPTS, WHOLE = "prompts as text", "whole conversations as trained"
GOES_ON, TOKENS = "training continues from the prompt", "token ids"
# Programs that may take less than the chat does: what they refuse is seen where it is asked, and is told here. One turn
# they have to take, and of what they take each text and token must be the chat's.
TAKE_LESS = ("llama.cpp", "Ollama")
# So often is a conversation laid out where the template writes the time.
ANEW = 3


class Texts:
    """All checks of texts and tokens, in the order in which they are told."""

    def __init__(self, by: str) -> None:
        self.prompts, self.whole = ProofCheck(PROMPTS, by), ProofCheck(WHOLE, by)
        self.goes_on, self.tokens = ProofCheck(GOES_ON, by), ProofCheck(TOKENS, by)

    def all(self) -> list[ProofCheck]:
        return [self.prompts, self.whole, self.goes_on, self.tokens]

    @property
    def are_equal(self) -> bool:
        return all(check.equal == check.of for check in self.all())

    def add(self, others: Texts) -> None:
        for check, other in zip(self.all(), others.all(), strict=True):
            check.add(other)


def hold_texts(
    reference: Reference, reader: Reader, conversations: list[ProofConversation], say: Say
) -> list[ProofCheck]:
    """Lay out and split every conversation in both, and compare. A shape that neither takes is said, not counted.

    A reader of TAKE_LESS may refuse by itself.
    """
    found, refused = Texts(reader.name), dict[str, str]()
    for number, conversation in enumerate(conversations, 1):
        found.add(_held(reference, reader, conversation, refused))
        say(f"Rendering conversations in {reader.name}: {number} of {len(conversations)}", number / len(conversations))
    if reader.name not in TAKE_LESS:
        added = reference.added_tokens
        found.tokens.compare(reference.tokens(added), reader.tokens(added), "the added tokens")
    told = [f"{shape}: {why}" for shape, why in refused.items()]
    found.prompts.because = "; ".join(filter(None, [found.prompts.because, *told]))
    return found.all()


def _held(reference: Reference, reader: Reader, conversation: ProofConversation, refused: dict[str, str]) -> Texts:
    """One conversation compared; again where the template writes the date, which may have changed in between."""
    for _ in range(ANEW if reference.is_dated else 1):
        found = Texts(reader.name)
        _hold(reference, reader, conversation, found, refused)
        if found.are_equal:
            break
    return found


def _hold(
    reference: Reference, reader: Reader, conversation: ProofConversation, found: Texts, refused: dict[str, str]
) -> None:
    try:
        trained = reference.trained(conversation)
    except CannotRender:
        trained = []
    if conversation.text is not None:
        for layout in trained:
            found.tokens.compare(reference.tokens(layout.text), reader.tokens(layout.text), conversation.name)
        return
    messages = reference.shaped(conversation.messages)
    for upto in replies_of(conversation):
        own, why = _rendered(reference, messages[:upto], conversation.tools, True)
        other, why_not = _rendered(reader, messages[:upto], conversation.tools, True)
        may_refuse = reader.name in TAKE_LESS and conversation.shape != ONE_TURN
        if other is None and (own is None or may_refuse):
            whose = f"this template takes none ({why})" if own is None else f"not in {reader.name} ({why_not})"
            refused.setdefault(conversation.shape, whose)
            continue
        found.prompts.compare(own, other, f"the prompt of {conversation.name}")
        if own is not None and other is not None:
            ids = reference.tokens(own) if reference.is_dated else reference.asked(messages[:upto], conversation.tools)
            found.tokens.compare(ids, reader.tokens(other), f"the prompt of {conversation.name}")
            _goes_on(found.goes_on, trained, upto, other, conversation.name)
    _hold_whole(reference, reader, conversation, messages, trained, found)


def _hold_whole(
    reference: Reference,
    reader: Reader,
    conversation: ProofConversation,
    messages: list[Message],
    trained: list[TextLayout],
    found: Texts,
) -> None:
    """The whole conversation, as the chat's template and as training lay it out; no prompt stands at its end.

    A text that training made of the beginning of a conversation is held against what the export makes of that.
    """
    own, _ = _rendered(reference, messages, conversation.tools, False)
    other, why_not = _rendered(reader, messages, conversation.tools, False)
    if other is None and (own is None or reader.name in TAKE_LESS):
        found.whole.because = why_not if own is not None else found.whole.because
        return
    what = f"the whole of {conversation.name}"
    if own is not None and other is not None:
        found.tokens.compare(reference.tokens(own), reader.tokens(other), what)
    if own != other or not trained:
        found.whole.compare(own, other, what)
        return
    for layout in trained:
        upto = max((span.message for span in layout.spans if span.message is not None), default=len(messages)) + 1
        made = other
        if layout.text != other and layout.text == _rendered(reader, messages[:upto], conversation.tools, False)[0]:
            made = layout.text
        found.whole.compare(layout.text, made, what, breaks=False, whose="training")


def _goes_on(check: ProofCheck, trained: list[TextLayout], upto: int, prompt: str, name: str) -> None:
    """Whether the text trained on begins with the prompt, and what is trained of the reply begins where it ends."""
    for layout in trained:
        own = [span.start for span in layout.spans if span.message == upto]
        if own:
            check.compare(layout.text[: own[0]], prompt, name, breaks=False, whose="training")
            return
    unknown = next((layout for layout in trained if any(span.message is None for span in layout.spans)), None)
    if unknown is not None:  # all of it is trained, or no one said which place is which reply
        check.compare(unknown.text[: len(prompt)], prompt, name, breaks=False, whose="training")


def _rendered(
    who: Reader, messages: list[Message], tools: list[dict[str, Any]] | None, prompt: bool
) -> tuple[str | None, str]:
    """The text; None where it is refused, and why."""
    try:
        return who.rendered(messages, tools, prompt), ""
    except CannotRender as error:
        return None, str(error)


def replies_of(conversation: ProofConversation) -> list[int]:
    """Where the first and the last reply stand that something was said before; the end, where there is no reply."""
    replies = [at for at, message in enumerate(conversation.messages) if message["role"] == "assistant" and at > 0]
    return sorted({replies[0], replies[-1]}) if replies else [len(conversation.messages)]
