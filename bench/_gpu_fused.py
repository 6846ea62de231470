"""The fused LoRA layer on a GPU: whole steps with it and without, then the layer alone, which runs go by."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench import _fused, _gpu_compare
from bench._gpu_frame import Frame, Item, Row
from core.system.hardware import device
from core.workspace import Workspace


def measured(seed: int, frame: Frame) -> Iterator[Item]:
    """The steps first: they read what their own processes take of the card."""
    yield from _gpu_compare.measured(_gpu_compare.FUSED, seed, frame)
    yield from frame.attempt("fused LoRA layer alone", partial(_layer, frame))


def _layer(frame: Frame) -> list[Row]:
    from core.model.load import dtype_for

    card = device()
    if frame.tiny:  # nothing is to go by its figures
        _fused.ratios(frame.config("llama-3.1-8b"), card, rounds=1)
        return []
    computing = str(dtype_for(card)[0]).removeprefix("torch.")
    times = {str(tokens): each for tokens, each in _fused.ratios(_fused.MODEL, card).items()}
    return _fused.remember(Workspace.open(None), card.name, computing, times)
