"""What every kind of conversation consists of: messages, and what counts as a right last reply."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """A whole conversation that ends with a right reply.

    `right` judges a whole reply to the messages before the last one: nothing may be missing or added.
    """

    messages: list[Message]
    right: Callable[[str], bool]

    @property
    def prompt(self) -> list[Message]:
        """The messages that the model gets: everything but the last reply."""
        return self.messages[:-1]


Kind = Callable[[random.Random], Example]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def casual(rng: random.Random, text: str) -> str:
    """The same question as people type it: sometimes polite, sometimes without capitals or a final mark."""
    roll = rng.random()
    if roll < 0.08:
        return rng.choice(("Hi! ", "Hello! ", "A question: ", "Good day! ", "One more question: ")) + text
    if roll < 0.22 and text.split()[0] in OPENERS:
        text = text[0].lower() + text[1:]
        return text.rstrip("?.") if rng.random() < 0.6 else text
    return text.rstrip("?.") if roll < 0.30 else text


_OPENERS = (
    "What Which Who Where When How Tell Name Give Please Can Could Is Are Do Does Say Write Make List Count "
    "Put Use Do Today One Add Take Explain Please Will Thanks Thank Hello Hi Good Goodbye My"
)
OPENERS = frozenset(_OPENERS.split())


def exchange(
    rng: random.Random, question: str, answers: str | Sequence[str], *, before: Sequence[Message] = ()
) -> Example:
    """One question and one of its right answers, after the messages in `before`."""
    options = (answers,) if isinstance(answers, str) else tuple(answers)
    messages = [*before, user(question), assistant(rng.choice(options))]
    return Example(messages, right=options.__contains__)
