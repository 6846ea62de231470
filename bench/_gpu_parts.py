"""The parts of `bench gpu`, and one of them run in a process of its own: a line of JSON for each row and sentence.

python -m bench._gpu_parts NAME SEED SECONDS [tiny]
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from bench import _gpu_chat, _gpu_compare, _gpu_doctor, _gpu_fused, _memory_gpu, headline, train_gpu
from bench._gpu_frame import Frame, Item, NotHere
from core.system.hardware import claim_card, device


@dataclass(frozen=True)
class Part:
    """One part: what it measures, the seconds that it takes on a large card, and the generator of its rows."""

    name: str
    about: str
    seconds: int
    measure: Callable[[int, Frame], Iterator[Item]]


def _on_and_off(comparison: _gpu_compare.Comparison) -> Callable[[int, Frame], Iterator[Item]]:
    return partial(_gpu_compare.measured, comparison)


def _varlen(seed: int, frame: Frame) -> Iterator[Item]:
    """Raises NotHere where runs do not take it either."""
    import torch

    from core.model.load import dtype_for
    from core.model.varlen import varlen_suits

    dtype, _ = dtype_for(device())
    if not varlen_suits("cuda", dtype):
        raise NotHere(f"torch {torch.__version__} has no varlen_attn for {dtype} on this card.")
    yield from _gpu_compare.measured(_gpu_compare.VARLEN, seed, frame)


def _not_yet(sentence: str) -> Callable[[int, Frame], Iterator[Item]]:
    def measure(seed: int, frame: Frame) -> Iterator[Item]:
        yield sentence

    return measure


# In the order of their use: what others need first, then the short ones, and what may be cut last.
PARTS = (
    Part("doctor", "the machine, and what a process takes beside its tensors", 50, _gpu_doctor.measured),
    Part("fp16", "a run in fp16 with its scaler, against the card's own dtype", 50, _on_and_off(_gpu_compare.FP16)),
    Part("oom", "a step that does not fit its limit", 60, _gpu_compare.out_of_memory),
    Part("embeddings", "embeddings in RAM and on the card", 80, _on_and_off(_gpu_compare.EMBEDDINGS)),
    Part("offload", "activations offloaded and kept", 80, _on_and_off(_gpu_compare.OFFLOAD)),
    Part("fused", "the fused LoRA layer and PEFT's own", 90, _gpu_fused.measured),
    Part("packing", "conversations packed and padded", 80, _on_and_off(_gpu_compare.PACKING)),
    Part("varlen", "packed rows of 8,192 tokens by varlen_attn and by SDPA", 80, _varlen),
    Part("streaming", "layers streamed from RAM or disk", 0, _not_yet("streaming: Nibble cannot stream layers yet.")),
    Part("chat", "the chat's speed", 70, _gpu_chat.measured),
    Part("memory", "planned memory against readings", 220, _memory_gpu.measured),
    Part("training", "speed against trl, with its defaults and tuned by hand", 330, train_gpu.measured),
    Part("headline", "the paper's claims: 65B in 48 GB, 7B in 12 GB", 260, headline.measured),
)


def main(name: str, seed: int, seconds: float, tiny: bool) -> None:
    """Print each row or sentence of the part as soon as it is there."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    part = next(each for each in PARTS if each.name == name)
    frame = Frame(tiny, time.monotonic() + seconds)
    items = frame.attempt(name, partial(part.measure, seed, frame))
    with contextlib.redirect_stdout(sys.stderr):  # libraries print what they like
        for item in items:
            print(json.dumps(item), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    claim_card()
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), "tiny" in sys.argv[4:])
