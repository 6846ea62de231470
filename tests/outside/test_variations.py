"""Each way to train that a recipe offers, done again by a plain loop; where chance draws, what stays true of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.outside import plain
from tests.outside.cases import IN_FP32, STARTER, Case, apart, in_odd_shards, made
from tests.outside.plain import Conversation

pytestmark = [pytest.mark.full, IN_FP32]
NATS = 1e-5


def _everything(tokenizer: Any, row: dict[str, Any], longest: int) -> Conversation:
    """Every token counts, those of a reply by its weight."""
    marked = plain.conversation(tokenizer, _with_weights(row, 1.0), longest)
    own = plain.conversation(tokenizer, row, longest)
    weights = [weight if mark else 1.0 for mark, weight in zip(marked.weights, own.weights, strict=True)]
    return replace(own, weights=weights)


def _last_reply(tokenizer: Any, row: dict[str, Any], longest: int) -> Conversation:
    *before, last = row["messages"]
    without = [{**each, "weight": 0.0} if each["role"] == "assistant" else each for each in before]
    return plain.conversation(tokenizer, {"messages": [*without, last]}, longest)


def _with_weights(row: dict[str, Any], weight: float) -> dict[str, Any]:
    return {"messages": [{**each, "weight": weight} for each in row["messages"]]}


TRAINED = {
    "padded, four at once": {"train.packing": "off", "train.micro_batch": 4},
    "all at once": {"train.micro_batch": 8, "train.seed": 3},
    "recomputed activations": {"train.gradient_checkpointing": "on", "train.micro_batch": 1},
    "sixteen bits": {"quantization.bits": 16},
    "FP4, constants as they are": {"quantization.type": "fp4", "quantization.double": False},
    "a level rate": {"train.schedule": "constant", "train.weight_decay": 0.3, "train.beta2": 0.95},
    "a rate that rises": {"train.schedule": "constant_with_warmup", "train.max_grad_norm": 0.05},
    "rsLoRA on queries and values": {"lora.scaling": "rank_stabilised", "lora.targets": "q_v"},
    "eager attention, plain AdamW": {"train.attention": "eager", "train.optimizer": "adamw"},
}


def _is_done_again(case: Case) -> None:
    told, again = case.run.steps, case.again.steps
    assert [step["loss"] for step in told] == pytest.approx([step.loss for step in again], abs=NATS)
    assert [step["grad_norm"] for step in told] == pytest.approx([step.grad_norm for step in again], rel=1e-5)
    assert [step["lr"] for step in told] == pytest.approx(case.rates, abs=1e-12)
    assert case.run.held_out[0] == pytest.approx(case.loss_of_held_out(case.base()), abs=NATS)
    assert case.run.held_out[len(told)] == pytest.approx(case.loss_of_held_out(case.again.model), abs=NATS)
    moved = apart(case.again.after, case.again.before)
    assert apart(plain.adapter_in(case.run.dir / "adapter"), case.again.after) < 1e-3 * moved


@pytest.mark.parametrize("name", TRAINED)
def test_the_starter_is_trained_as_by_a_plain_loop(name: str, tmp_path: Path) -> None:
    _is_done_again(made(tmp_path / "here", STARTER, TRAINED[name]))


@pytest.mark.parametrize("train_on, marks", [("everything", _everything), ("last_reply", _last_reply)])
def test_what_counts_in_the_loss_is_what_was_asked(train_on: str, marks: Any, tmp_path: Path) -> None:
    _is_done_again(made(tmp_path / "here", STARTER, {"data.train_on": train_on}, marks))


def test_what_is_longer_than_the_limit_is_cut_there(tmp_path: Path) -> None:
    """The longest row has 99 tokens."""
    case = made(tmp_path / "here", STARTER, {"data.max_length": 98})
    assert max(case.lengths) == 98
    _is_done_again(case)


@pytest.mark.parametrize(
    "architecture, dtype",
    [
        ("llama", torch.float16),
        ("qwen3", torch.bfloat16),
        ("gemma2", torch.float32),
        ("gemma3_text", torch.bfloat16),
        ("gpt_neox", torch.float32),
    ],
)
def test_an_architecture_is_trained_as_by_a_plain_loop(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In odd shards of each dtype; with soft caps, windows, tied embeddings and queries, keys and values in one."""
    base = in_odd_shards(tmp_path / "base", architecture, dtype)
    _is_done_again(made(tmp_path / "here", base, {}))


@pytest.mark.parametrize("setting", [{"lora.dropout": 0.3}, {"train.neftune_alpha": 5}], ids=["dropout", "NEFTune"])
def test_what_chance_does_while_training_is_off_when_the_loss_is_measured(
    setting: dict[str, Any], tmp_path: Path
) -> None:
    case = made(tmp_path / "here", STARTER, setting)
    losses = [step["loss"] for step in case.run.steps]
    assert max(abs(one - other.loss) for one, other in zip(losses, case.again.steps, strict=True)) > 1e-2, "it is on"
    for step in (3, 6):
        adapted = case.adapted(case.run.dir / "checkpoints" / str(step) / "adapter")
        assert case.run.held_out[step] == pytest.approx(case.loss_of_held_out(adapted), abs=NATS)
