"""Holds what an export answered against what the chat did: which replies part, where, and by more than rounding."""

from dataclasses import dataclass
from typing import Any

import torch

from core.export.proof.checks import ProofCheck

# Where a model's best two tokens are nearer than this many roundings of its largest logit, rounding alone decides.
ROUNDINGS = 4
# Roundings of weights add up on the way through the layers: logits that lie further apart have another cause.
ROUNDINGS_THROUGH = 8
# Sums in another order differ by so much of the largest logit in fp32 too. Like all of the logits' line it marks an
# export and refuses none. No bound would do both: between the chat in bf16 and llama.cpp, right exports of seven
# families differed by up to 0.016 of the largest logit, and by 0.05 in q8_0, more than many a fault would make. Only
# texts, tokens and answers that part refuse.
LEAST_SHARE = 1e-5
LOGITS = "logits"


@dataclass
class Answers:
    """What a model answered to each prompt: its tokens, and the logits (tokens, vocabulary) of given replies."""

    replies: list[list[int]]
    logits: list[torch.Tensor]
    dtype: torch.dtype


def held_together(reference: Answers, replies: list[list[int]], eps: float) -> dict[str, Any]:
    """How many replies are the reference's, how many part where it wavers, and the first that part elsewhere."""
    equal, ties, parted = 0, 0, []
    for number, (own, other) in enumerate(zip(reference.replies, replies, strict=True)):
        if own == other:
            equal += 1
        elif _wavers(reference.logits[number], _parting(own, other), eps):
            ties += 1
        else:
            parted.append({"prompt": number, "reference": own, "artefact": other})
    return {"equal": equal, "ties": ties, "parted": parted[:3]}


def _parting(own: list[int], other: list[int]) -> int:
    """Where two replies part: at the first token that differs, or where the shorter one ends."""
    shorter = min(len(own), len(other))
    return next((at for at in range(shorter) if own[at] != other[at]), shorter)


def _wavers(logits: torch.Tensor, at: int, eps: float) -> bool:
    """Whether the two likeliest tokens at the place `at` of a reply are nearer than rounding can tell apart."""
    here = logits[min(at, len(logits) - 1)]
    best = here.topk(2).values
    return bool(best[0] - best[1] <= ROUNDINGS * eps * here.abs().max())


def answers(found: dict[str, Any], by: str) -> ProofCheck:
    """The line of the replies."""
    ties = found["ties"]
    tied = f"{ties} differ only where the next two tokens are equally likely up to rounding" if ties else ""
    return ProofCheck("greedy replies", by, found["prompts"], found["equal"], tied, ties)


def logits(reference: Answers, artefact: Answers, eps: float, by: str) -> tuple[ProofCheck, float]:
    """The line of the logits: equal where rounding alone explains the difference; and the largest one."""
    pairs = zip(reference.logits, artefact.logits, strict=True)
    return _within_rounding([(float((own - other).abs().max()), own) for own, other in pairs], eps, by)


def likelihoods(
    reference: list[torch.Tensor], found: list[dict[int, float]], eps: float, by: str
) -> tuple[ProofCheck, float]:
    """The same for a program that gives the logarithms of the probabilities of its likeliest tokens, no more.

    `reference` has the logits (vocabulary) of the place where each was `found`.
    """
    compared = []
    for own, likeliest in zip(reference, found, strict=True):
        logarithms = own.log_softmax(-1)
        difference = max(abs(float(logarithms[token]) - value) for token, value in likeliest.items())
        compared.append((difference, own))
    return _within_rounding(compared, eps, by)


def _within_rounding(compared: list[tuple[float, torch.Tensor]], eps: float, by: str) -> tuple[ProofCheck, float]:
    """Of each prompt the largest difference, with the logits that it is a difference of."""
    check, largest = ProofCheck(LOGITS, by), 0.0
    for difference, own in compared:
        check.of += 1
        check.equal += difference <= max(ROUNDINGS_THROUGH * eps, LEAST_SHARE) * float(own.abs().max())
        largest = max(largest, difference)
    check.because = f"largest difference {largest:.2g}"
    return check, largest
