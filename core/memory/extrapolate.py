"""A deep model's step extrapolated from three shallow ones, where they show that each layer adds the same.

Layers of one kind add the same to every phase of a step, to the byte. Where the second added layer differs from the
first in any category of any phase, the whole model is traced instead.
"""

import math
from collections.abc import Callable
from typing import Any

from core.memory.trace import Phase, Traced

Config = dict[str, Any]


def traced_at_depth(
    config: Config, trace_of: Callable[[Config], Traced], every: int = 1, least: int = 1
) -> tuple[Traced, bool]:
    """What `trace_of` gives for a whole model's config, and whether it was extrapolated from shallow ones.

    `every` says after how many layers the run treats them alike again, `least` how many a model must have for one
    more to count like any other. The text model's config may be under `text_config`.
    """
    depth, period = int(_text(config)[_depth_key(config)]), math.lcm(_period(config), every)
    shallow = [(least + more) * period + depth % period for more in (1, 2, 3)]
    if depth <= shallow[-1] + period:
        return trace_of(config), False
    first, second, third = (trace_of(_with_depth(config, layers)) for layers in shallow)
    if not _even(first, second, third):
        return trace_of(config), False
    return _extrapolated(second, third, (depth - shallow[-1]) // period), True


def _text(config: Config) -> Config:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _depth_key(config: Config) -> str:
    return next(key for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if key in _text(config))


def _period(config: Config) -> int:
    """After how many layers their kinds repeat; 1 where all are alike."""
    kinds = _text(config).get("layer_types")
    if not isinstance(kinds, list) or not kinds:
        return int(_text(config).get("sliding_window_pattern") or (2 if config.get("model_type") == "gemma2" else 1))
    return next(
        step for step in range(1, len(kinds) + 1) if all(kinds[i] == kinds[i % step] for i in range(len(kinds)))
    )


def _with_depth(config: Config, layers: int) -> Config:
    text = {**_text(config), _depth_key(config): layers}
    for key in ("layer_types", "mlp_layer_types", "no_rope_layers"):
        if isinstance(text.get(key), list):
            text[key] = text[key][:layers]
    return text if _text(config) is config else {**config, "text_config": text}


def _even(first: Traced, second: Traced, third: Traced) -> bool:
    """Whether the step from the first to the second is that from the second to the third, everywhere."""
    found = (first, second, third)
    if not [p.name for p in first.phases] == [p.name for p in second.phases] == [p.name for p in third.phases]:
        return False
    for a, b, c in ((each.managed for each in found), (each.moved for each in found)):
        if b - a != c - b:
            return False
    rows = [[trace.resting, *(phase.at_peak for phase in trace.phases)] for trace in found]
    return all(
        b[category] - a[category] == c[category] - b[category] for a, b, c in zip(*rows, strict=True) for category in a
    )


def _extrapolated(second: Traced, third: Traced, steps: int) -> Traced:
    def on(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
        return {key: after[key] + steps * (after[key] - before[key]) for key in after}

    phases = tuple(
        Phase(late.name, on(early.at_peak, late.at_peak))
        for early, late in zip(second.phases, third.phases, strict=True)
    )
    managed = third.managed + steps * (third.managed - second.managed)
    moved = third.moved + steps * (third.moved - second.moved)
    layers = third.layers + steps * third.layers[len(second.layers) :]
    return Traced(
        phases, on(second.resting, third.resting), third.embedding, managed, moved, layers, third.largest_matrix
    )
