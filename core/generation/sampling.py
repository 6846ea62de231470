"""How a reply is drawn: what the chat, the Arena and the endpoint all pass on. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from core.errors import AskError

LONGEST = 32_768
MOST_STOPS, LONGEST_STOP = 16, 200
# (smallest, largest) of each setting that is a number.
RANGES: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, LONGEST),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1000),
    "min_p": (0, 1),
    "repetition_penalty": (0.5, 2),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "seed": (0, 2**63 - 1),
}


# Below it the likeliest token is all but certain, and far below it the numbers are none any more.
COLDEST = 1e-4


class SamplingError(AskError):
    """A setting of a reply that cannot be; `setting` names it."""

    setting: str

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message, setting)


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token. The defaults are those of QLoRA's paper (nucleus sampling, p 0.9, T 0.7).

    `greedy`, or a temperature of 0: always the likeliest token. `top_k` and `min_p` 0 leave them off; a
    `repetition_penalty` of 1 is the model's own, off for nearly all. The penalties for presence and frequency are
    OpenAI's: of what the reply itself has said. A reply ends before the first of the texts in `stop`. Without a `seed`
    each reply is another.

    Raises SamplingError for a value out of its range.
    """

    max_new_tokens: int = 256
    greedy: bool = False
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SamplingError(name, f"{name}: {value} is not valid; allowed: {low:,} to {high:,}.")
        object.__setattr__(self, "stop", tuple(text for text in self.stop if text))
        if len(self.stop) > MOST_STOPS or any(len(text) > LONGEST_STOP for text in self.stop):
            raise SamplingError(
                "stop", f"stop: at most {MOST_STOPS} stop sequences of at most {LONGEST_STOP} characters each."
            )

    def as_arguments(self) -> dict[str, Any]:
        """The arguments for transformers' `generate`; the length, the seed, the stop texts and the penalties for
        presence and frequency are the caller's.
        """
        if self.greedy or self.temperature < COLDEST:
            drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        else:
            numbers = {"temperature": float(self.temperature), "top_p": float(self.top_p)}  # it refuses whole ones
            drawn = {"do_sample": True, **numbers, "top_k": self.top_k}
            drawn |= {"min_p": float(self.min_p)} if self.min_p else {}
        # A few models come with a penalty of their own, which plain `generate` obeys too.
        penalty = {} if self.repetition_penalty == 1 else {"repetition_penalty": self.repetition_penalty}
        return {**drawn, **penalty}
