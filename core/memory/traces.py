"""Traces for plans: a recipe and a micro-batch to counted bytes, each computed once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from core.errors import ModelError
from core.memory.activation_offload import ON_THEIR_WAY
from core.memory.extrapolate import traced_at_depth
from core.memory.meta_model import meta_model
from core.memory.problem import TraceOf
from core.memory.trace import MicroBatch, Traced, trace
from core.recipe import LoraSettings, QuantizationSettings, Recipe
from core.step.adapter_dtype import adapter_dtype
from core.step.checkpointing import EVERY
from core.step.objective import Objective, objective_of
from core.step.optimizer import Optimizer, optimizer_for
from core.text.library_errors import telling_line


def tracer(config: dict[str, Any], device_kind: str, dtype: str) -> TraceOf:
    """What traces steps of the model with this transformers config on a device of that kind, computing in `dtype`."""
    known = json.dumps(config, sort_keys=True)

    def of(recipe: Recipe, micro_batches: Sequence[MicroBatch], checkpointing: str, offload: bool) -> Traced:
        optimizer = optimizer_for(recipe.train.optimizer)
        settings = (recipe.quantization.model_dump_json(), recipe.lora.model_dump_json(), recipe.train.attention)
        return _trace(
            known,
            device_kind,
            dtype,
            settings,
            optimizer,
            tuple(micro_batches),
            checkpointing,
            offload,
            objective_of(recipe),
        )

    return of


@lru_cache(maxsize=512)
def _trace(
    config: str,
    device_kind: str,
    dtype: str,
    settings: tuple[str, str, str],
    optimizer: Optimizer,
    micro_batches: tuple[MicroBatch, ...],
    checkpointing: str,
    offload: bool,
    objective: Objective,
) -> Traced:
    quantization = QuantizationSettings.model_validate_json(settings[0])
    lora = LoraSettings.model_validate_json(settings[1])
    computing: torch.dtype = getattr(torch, dtype)
    adapters_in = adapter_dtype(computing, optimizer, device_kind)

    def whole(one: dict[str, Any]) -> Traced:
        model = meta_model(one, quantization, lora, computing, adapters_in, settings[2])
        return trace(model, micro_batches, device_kind, optimizer, checkpointing, offload, objective)

    try:
        least = ON_THEIR_WAY if offload else 1
        if _names_layers(lora):
            return whole(json.loads(config))
        found, _ = traced_at_depth(json.loads(config), whole, max(1, EVERY[checkpointing]), least)
    except ModelError:
        raise
    except Exception as error:  # an operator without a meta kernel, values that are looked at: never guessed instead
        kind = json.loads(config).get("model_type")
        said = telling_line(error)
        raise ModelError(f"A training step of a {kind} model cannot be traced: {said}.") from None
    return found


def _names_layers(lora: LoraSettings) -> bool:
    """Whether a layer is named by its number: a shallow model may not have it."""
    named = [*lora.extra_modules, *(lora.targets if isinstance(lora.targets, list) else ())]
    return any(part.isdigit() for name in named for part in name.split("."))
