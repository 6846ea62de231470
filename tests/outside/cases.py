"""Runs to look at: a base, its rows, and what was asked, each with what a plain tokenizer makes of the rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.outside import plain
from tests.outside.command import ROOT, Trained, train
from tests.outside.plain import Conversation, Step
from tests.outside.rows import left_out, pair_of, rows_for
from tests.tiny import tiny_model, write_jsonl

CPUINFO = Path("/proc/cpuinfo")
IN_FP32 = pytest.mark.skipif(
    sys.platform == "darwin" or (CPUINFO.exists() and "amx_bf16" in CPUINFO.read_text("utf-8")),
    reason="Nibble computes in 16 bits here, and the bars are those of fp32's rounding",
)
STARTER = ROOT / "presets" / "starter" / "model"
SHORTEST = {"starter": 44, "tiny": 96}  # the least that four short turns take with each tokenizer
HELD_OUT = 2
# Of ten rows two are held out, so an effective batch of eight is all of the others, whatever their order.
USUAL: dict[str, Any] = {
    "data.eval_fraction": HELD_OUT / 10,
    "lora.rank": 4,
    "lora.alpha": 16,
    "train.effective_batch": 8,
    "train.micro_batch": 2,
    "train.max_steps": 6,
    "train.learning_rate": 0.005,
    "train.warmup_ratio": 0.34,
    "train.max_grad_norm": 1.0,
    "evaluation.times": 2,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 20,
}
Marks = Callable[[Any, dict[str, Any], int], Conversation]


@dataclass(frozen=True)
class Case:
    """A run that has ended, and what it was asked."""

    run: Trained
    model: Path
    asked: dict[str, Any]
    conversations: list[Conversation]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(each.ids) for each in self.conversations]

    @cached_property
    def held_out(self) -> list[int]:
        """The rows that no step had, by how many tokens the steps had."""
        if self.asked["train.effective_batch"] == 2:
            seen = {row for step in self.rows_of_steps for row in step}
            return sorted(set(range(len(self.conversations))) - seen)
        return left_out(self.lengths, self.run.steps[0]["tokens"], HELD_OUT)

    @cached_property
    def rows_of_steps(self) -> list[list[int]]:
        """Which rows each step had."""
        if self.asked["train.effective_batch"] == 2:
            return [pair_of(self.lengths, step["tokens"]) for step in self.run.steps]
        trained = [row for row in range(len(self.conversations)) if row not in self.held_out]
        return [trained for _ in self.run.steps]

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied by: alpha / r, or alpha / √r (rsLoRA)."""
        rank, alpha = self.asked["lora.rank"], self.asked["lora.alpha"]
        return float(alpha / (math.sqrt(rank) if self.asked.get("lora.scaling") == "rank_stabilised" else rank))

    def base(self) -> Any:
        """The base as the recipe holds it, in plain fp32 layers."""
        asked = self.asked
        bits, kind = asked.get("quantization.bits", 4), asked.get("quantization.type", "nf4")
        return plain.base(self.model, bits, kind, asked.get("quantization.double", True))

    def adapted(self, adapter: Path) -> Any:
        """The base with an adapter over it by the formula."""
        model = self.base()
        plain.adapt(model, plain.adapter_in(adapter), self.scale)
        return model

    def loss_of_held_out(self, model: Any) -> float:
        """The mean over all tokens that count of the rows that no step had."""
        return plain.mean_loss(model, [self.conversations[row] for row in self.held_out])

    @property
    def rates(self) -> list[float]:
        """The learning rate of each step."""
        asked, total = self.asked, len(self.run.steps)
        warmup = round(asked["train.warmup_ratio"] * total)
        schedule, highest = asked.get("train.schedule", "linear"), asked["train.learning_rate"]
        return [plain.rate(schedule, highest, warmup, total, step) for step in range(1, total + 1)]

    @cached_property
    def again(self) -> Again:
        """The whole training done again, plainly."""
        asked, model = self.asked, self.base()
        rules = plain.Rules(
            self.rates,
            asked["train.max_grad_norm"],
            asked.get("train.weight_decay", 0.0),
            asked.get("train.beta2", 0.999),
        )
        before = self._before_the_first_step(model, rules)
        trained = plain.adapt(model, before, self.scale)
        batches = [[self.conversations[row] for row in rows] for rows in self.rows_of_steps]
        steps = plain.train(model, list(trained.values()), batches, rules)
        return Again(steps, before, {name: value.detach() for name, value in trained.items()}, model)

    def _before_the_first_step(self, base: Any, rules: plain.Rules) -> dict[str, torch.Tensor]:
        """What the adapter started from, by its first checkpoint.

        B was zero, so A had no gradient and that step only decayed it; a magnitude was the length of W's row.
        """
        decayed = 1 - rules.rates[0] * rules.weight_decay
        before: dict[str, torch.Tensor] = {}
        for name, value in plain.adapter_in(self.run.dir / "checkpoints" / "1" / "adapter").items():
            layer = name.removeprefix(plain.PREFIX).partition(".lora_")[0]
            if "lora_A" in name:
                before[name] = value / decayed
            elif "lora_B" in name:
                before[name] = torch.zeros_like(value)
            else:
                before[name] = base.get_submodule(layer).weight.norm(dim=1)
        return before


@dataclass(frozen=True)
class Again:
    """What the plain loop came to: its steps, the adapter before and after, and the model that it trained."""

    steps: list[Step]
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    model: Any


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The length of the difference of two adapters."""
    assert one.keys() == other.keys()
    return math.sqrt(sum(float((one[name].float() - other[name].float()).square().sum()) for name in one))


def made(workspace: Path, model: Path, asked: dict[str, Any], marks: Marks = plain.conversation) -> Case:
    """Train as USUAL, and as `asked`. `marks` says what of a row counts in the loss."""
    asked = {**USUAL, **asked}
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = rows_for(tokenizer, SHORTEST["starter" if model == STARTER else "tiny"])
    workspace.mkdir(parents=True)
    data = write_jsonl(workspace / "rows.jsonl", rows)
    run = train(workspace, {"model": str(model), "data.path": str(data), **asked})
    longest = asked.get("data.max_length", 512)
    return Case(run, model, asked, [marks(tokenizer, row, longest) for row in rows])


def in_odd_shards(folder: Path, architecture: str, dtype: torch.dtype) -> Path:
    """A tiny random model whose weights lie in `dtype` in many small files."""
    tiny_model(folder, architecture)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.to(dtype).save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder
