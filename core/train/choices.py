"""Decides what a recipe leaves open, each choice with its reason. The traced plan will take over from here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from core.budget import Budget
from core.data.render import Rendered
from core.hardware import Device
from core.recipe import Recipe
from core.sizes import show_size

# Tokens at once that keep the device busy; more gains little and takes memory.
BUSY_TOKENS = {"cpu": 2048, "mps": 4096, "cuda": 8192}


@dataclass(frozen=True)
class Choices:
    """What was decided, and why."""

    micro_batch: int
    accumulation: int
    checkpointing: bool
    packed: bool
    reasons: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """`chosen` and `reasons` as plan.json holds them."""
        values = asdict(self)
        return {"reasons": values.pop("reasons"), "chosen": values}


def choose(recipe: Recipe, model: Any, rows: list[Rendered], device: Device, budget: Budget, packed: bool) -> Choices:
    """Pick micro-batch, accumulation and checkpointing for `rows`, keeping what the person fixed."""
    rules, reasons = recipe.train, []

    def because(setting: str, value: object, why: str) -> None:
        reasons.append({"setting": setting, "value": value, "because": why})

    lengths = [len(row.ids) for row in rows]
    longest, mean = max(lengths), sum(lengths) / len(lengths)
    micro_batch = rules.micro_batch
    if micro_batch is None:
        busy = BUSY_TOKENS[device.kind]
        divisors = [size for size in range(1, rules.effective_batch + 1) if rules.effective_batch % size == 0]
        micro_batch = max([size for size in divisors if size * mean <= busy], default=1)
        because(
            "micro_batch",
            micro_batch,
            f"{micro_batch * mean:,.0f} of your tokens at once keep this device busy",
        )
    else:
        because("micro_batch", micro_batch, "you set it")
    accumulation = rules.effective_batch // micro_batch
    because("accumulation", accumulation, f"{micro_batch} x {accumulation} conversations make one optimizer step")
    because("packed", packed, _why_packed(packed))
    tokens = int(micro_batch * mean) if packed else micro_batch * longest
    room, kept = (
        (budget.bytes - budget.floor_bytes) // 2,
        activation_bytes(model, max(tokens, longest), longest),
    )
    if rules.gradient_checkpointing == "auto":
        checkpointing = kept > room
        size = show_size(kept)
        why = f"keeping about {size} of activations {'does not fit' if checkpointing else 'fits'} the budget easily"
        because("checkpointing", checkpointing, why)
    else:
        checkpointing = rules.gradient_checkpointing == "on"
        because("checkpointing", checkpointing, "you set it")
    return Choices(micro_batch, accumulation, checkpointing, packed, reasons)


def _why_packed(packed: bool) -> str:
    if packed:
        return "conversations that share a row were proved on this model not to see each other, and none is padded"
    return "this model lets conversations in one row see each other, so each has a row of its own"


def activation_bytes(model: Any, tokens: int, longest: int) -> int:
    """Roughly what a forward pass keeps for the backward pass without checkpointing, in bytes.

    A dozen tensors of the hidden size, five of the feed-forward size and the attention scores a layer: an estimate
    that errs upwards, good enough to tell easy from tight.
    """
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    width = max(longest, 256)
    a_token = 12 * config.hidden_size + 5 * inner + 2 * config.num_attention_heads * width
    return int(tokens * a_token * config.num_hidden_layers * model.dtype.itemsize)
