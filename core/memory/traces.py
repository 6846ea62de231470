"""Traces for plans: a recipe and a micro-batch to counted bytes, each computed once."""

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
from core.model.varlen import NAME as VARLEN
from core.recipe import LoraSettings, Recipe
from core.step.adapter_dtype import adapter_dtype
from core.step.checkpointing import EVERY
from core.step.objective import objective_of
from core.step.optimizer import optimizer_for
from core.text.library_errors import telling_line

# The settings that a trace depends on.
_RELEVANT: Any = {"quantization": True, "lora": True, "train": {"attention", "optimizer"}}


def tracer(
    config: dict[str, Any],
    device_kind: str,
    dtype: str,
    pages: bool = True,
    varlen: bool = False,
    fused: bool = True,
) -> TraceOf:
    """What traces steps of the model with this transformers config on a device of that kind, computing in `dtype`.

    `pages`: whether a GPU has managed memory for paged optimizers. `varlen`: packed rows need no mask.
    `fused`: LoRA layers compute in one pass wherever they can.
    """
    known = json.dumps(config, sort_keys=True)

    def of(recipe: Recipe, micro_batches: Sequence[MicroBatch], checkpointing: str, offload: bool) -> Traced:
        settings = recipe.model_dump_json(include=_RELEVANT)
        device = (device_kind, dtype, pages)
        return _trace(known, *device, varlen, fused, settings, tuple(micro_batches), checkpointing, offload)

    return of


@lru_cache(maxsize=512)
def _trace(
    config: str,
    device_kind: str,
    dtype: str,
    pages: bool,
    varlen: bool,
    fused: bool,
    settings: str,
    micro_batches: tuple[MicroBatch, ...],
    checkpointing: str,
    offload: bool,
) -> Traced:
    recipe, computing = Recipe.model_validate_json(settings), getattr(torch, dtype)
    lora, attention = recipe.lora, VARLEN if varlen else recipe.train.attention
    optimizer, objective = optimizer_for(recipe.train.optimizer, pages), objective_of(recipe)
    adapters_in = adapter_dtype(computing, optimizer, device_kind)

    def whole(one: dict[str, Any]) -> Traced:
        model = meta_model(one, recipe.quantization, lora, computing, adapters_in, attention)
        return trace(model, micro_batches, device_kind, optimizer, checkpointing, offload, objective, fused)

    try:
        if _names_layers(lora):
            return whole(json.loads(config))
        least = ON_THEIR_WAY if offload else 1
        found, _ = traced_at_depth(json.loads(config), whole, max(1, EVERY[checkpointing]), least)
    except ModelError:
        raise
    except Exception as error:  # an operator without a meta kernel, or one that looks at values: no estimate instead
        kind = json.loads(config).get("model_type")
        reason = telling_line(error)
        raise ModelError(f"A training step of a {kind} model cannot be traced: {reason}.") from None
    return found


def _names_layers(lora: LoraSettings) -> bool:
    """Whether a layer is named by its number: a shallow model may not have it."""
    named = [*lora.extra_modules, *(lora.targets if isinstance(lora.targets, list) else ())]
    return any(part.isdigit() for name in named for part in name.split("."))
