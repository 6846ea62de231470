"""The right values, computed the plain way: one conversation at a time, weights dequantised, adapters by their formula.

Sources: NF4 with double quantisation, QLoRA, arXiv 2305.14314, section 3; LoRA, 2106.09685; rsLoRA, 2312.03732; DoRA,
2402.09353, whose norm takes no part in the gradient (section 4.3); AdamW, 1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

PREFIX = "base_model.model."


@dataclass(frozen=True)
class Conversation:
    """Its tokens, and by how much each counts in the loss."""

    ids: list[int]
    weights: list[float]

    @property
    def counted(self) -> float:
        """What counts of it: the first token has nothing before it to be predicted from."""
        return sum(self.weights[1:])


def conversation(tokenizer: Any, row: dict[str, Any], longest: int = 512) -> Conversation:
    """A row of `messages` by its template's own marks: the replies count, each by its `weight`."""
    messages = [{"role": each["role"], "content": each["content"]} for each in row["messages"]]
    made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    by = [float(each.get("weight", 1.0)) for each in row["messages"] if each["role"] == "assistant"]
    weights, reply, before = [], -1, 0
    for mark in made["assistant_masks"]:
        reply += mark > before
        weights.append(by[reply] if mark else 0.0)
        before = mark
    return Conversation(list(made["input_ids"])[:longest], weights[:longest])


def through_four_bits(weight: torch.Tensor, kind: str = "nf4", double: bool = True) -> torch.Tensor:
    """A matrix as four bits hold it: blocks of 64, whose constants are held in eight bits in blocks of 256."""
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=kind)
    assert state.state2 is None or state.state2.blocksize == 256
    return dequantize_4bit(packed, state)


def base(folder: Path, bits: int = 4, kind: str = "nf4", double: bool = True) -> Any:
    """The model in `folder`, in fp32, each linear layer but the head as `bits` bits hold it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if bits == 4:
        for _, layer in linear_layers(model):
            layer.weight.data = through_four_bits(layer.weight.data, kind, double)
    return model


def linear_layers(model: Any) -> list[tuple[str, torch.nn.Linear]]:
    """Every linear layer but the head."""
    head = model.get_output_embeddings()
    named = model.named_modules()
    return [(name, each) for name, each in named if isinstance(each, torch.nn.Linear) and each is not head]


class Adapted(torch.nn.Module):
    """A linear layer W with an adapter beside it: Wx + s·B(Ax), or DoRA's m · (W + s·BA) / ‖W + s·BA‖ of each row."""

    def __init__(self, layer: torch.nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale
        self.a, self.b = torch.nn.Parameter(a.float().clone()), torch.nn.Parameter(b.float().clone())
        self.magnitude: torch.nn.Parameter | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        if self.magnitude is None:
            return self.layer(x) + self.scale * ((x @ self.a.t()) @ self.b.t())
        weight = self.layer.weight + self.scale * self.b @ self.a
        norm = weight.detach().norm(dim=1)
        linear = torch.nn.functional.linear(x, weight * (self.magnitude / norm)[:, None])
        return linear if self.layer.bias is None else linear + self.layer.bias


def adapt(model: Any, weights: dict[str, torch.Tensor], scale: float) -> dict[str, torch.nn.Parameter]:
    """Lay the adapter in `weights` (PEFT's names) over `model`. Returns what of it is trained, by those names."""
    found: dict[str, torch.nn.Parameter] = {}
    for name, layer in linear_layers(model):
        key = f"{PREFIX}{name}"
        if f"{key}.lora_A.weight" not in weights:
            continue
        own = Adapted(layer, weights[f"{key}.lora_A.weight"], weights[f"{key}.lora_B.weight"], scale)
        found |= {f"{key}.lora_A.weight": own.a, f"{key}.lora_B.weight": own.b}
        if f"{key}.lora_magnitude_vector" in weights:
            own.magnitude = torch.nn.Parameter(weights[f"{key}.lora_magnitude_vector"].float().clone())
            found[f"{key}.lora_magnitude_vector"] = own.magnitude
        model.set_submodule(name, own)
    assert found.keys() == weights.keys(), "every tensor of the adapter has its place"
    return found


def adapter_in(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter's tensors by PEFT's names."""
    return load_file(folder / "adapter_model.safetensors")


def summed_loss(model: Any, one: Conversation) -> torch.Tensor:
    """The negative log-likelihood, in nats, of what counts of a conversation."""
    logits = model(input_ids=torch.tensor([one.ids]), use_cache=False).logits[0, :-1].float()
    each = torch.nn.functional.cross_entropy(logits, torch.tensor(one.ids[1:]), reduction="none")
    return (each * torch.tensor(one.weights[1:])).sum()


def mean_loss(model: Any, rows: Iterable[Conversation]) -> float:
    """The mean over all tokens that count, in nats."""
    rows = list(rows)
    with torch.no_grad():
        return float(sum(summed_loss(model, each) for each in rows)) / sum(each.counted for each in rows)


def rate(schedule: str, highest: float, warmup: int, total: int, step: int) -> float:
    """The learning rate that optimizer step `step`, counted from 1, is made with."""
    done = step - 1
    if schedule == "constant":
        return highest
    if done < warmup:
        return highest * done / warmup
    if schedule == "constant_with_warmup":
        return highest
    share = (done - warmup) / max(1, total - warmup)
    return highest * (1 - share if schedule == "linear" else (1 + math.cos(math.pi * share)) / 2)


@dataclass(frozen=True)
class Rules:
    """How it is trained."""

    rates: Sequence[float]
    longest_gradient: float
    weight_decay: float = 0.0
    beta2: float = 0.999


@dataclass(frozen=True)
class Step:
    """What an optimizer step came to: the mean loss, and the gradient's length before it was shortened."""

    loss: float
    grad_norm: float


def train(
    model: Any, trained: Sequence[torch.nn.Parameter], steps: list[list[Conversation]], rules: Rules
) -> list[Step]:
    """Train by AdamW, each step on its own conversations, of which each token that counts weighs the same."""
    optimizer = torch.optim.AdamW(trained, betas=(0.9, rules.beta2), eps=1e-8, weight_decay=rules.weight_decay)
    told = []
    for conversations, now in zip(steps, rules.rates, strict=True):
        counted, loss = sum(each.counted for each in conversations), 0.0
        optimizer.zero_grad()
        for each in conversations:
            part = summed_loss(model, each) / counted
            part.backward()
            loss += float(part.detach())
        norm = torch.nn.utils.clip_grad_norm_(trained, rules.longest_gradient)
        for group in optimizer.param_groups:
            group["lr"] = now
        optimizer.step()
        told.append(Step(loss, float(norm)))
    return told
