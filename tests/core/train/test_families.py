"""Families of models, each small and random, through the whole path: NF4, adapters, training, saving, plain peft."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit

import core.train.loop as loop
from core.launch.submit import submit
from core.model.moe import NAME, experts_of, fused_weights
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.tail import Tail
from core.step.packing import packing_is_exact
from core.workspace import Workspace
from tests.core.families import FAMILIES, Facts
from tests.core.queue_only import QueueOnly
from tests.tiny import tiny_model

QUESTION = "hello there"


def _train(base: Path, rows_file: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Any]:
    """Train three steps in this process. The run, and the model as training left it."""
    recipe = make_recipe(
        {
            "model": str(base),
            "data.path": str(rows_file),
            "lora.rank": 4,
            "train.effective_batch": 4,
            "train.max_steps": 3,
            "train.learning_rate": 0.01,
            "evaluation.times": 1,
            "evaluation.prompts": [QUESTION],
            "evaluation.max_new_tokens": 4,
        }
    )
    run = submit(recipe, workspace, QueueOnly())  # type: ignore[arg-type]
    made: list[Any] = []
    attach = loop.attach_lora
    monkeypatch.setattr(loop, "attach_lora", lambda *args, **named: made.append(attach(*args, **named)) or made[0])
    assert loop.train(run) == "finished"
    return run, made[0]


def _plain(base: Path, adapter: Path) -> Any:
    """What a person gets who knows nothing of Nibble: transformers' NF4 base, and peft over it.

    Of a mixture transformers alone leaves the experts in 16 bits; here they are in four, as our quantiser has them.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from core.model.load import keep_quantisation_exact

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=quantization, dtype=torch.float32, experts_implementation=NAME
    )
    keep_quantisation_exact(model)
    return PeftModel.from_pretrained(model, adapter).eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 40)[None]).logits


@pytest.mark.usefixtures("unlimited_afterwards")
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_family_learns_is_saved_and_answers_the_same_elsewhere(
    architecture: str, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from core.generation.generate import answers

    base = tiny_model(tmp_path / "base", architecture)
    run, trained = _train(base, rows_file, Workspace.open(tmp_path / "workspace"), monkeypatch)
    modules = dict(trained.get_base_model().named_modules())
    found = Facts(
        sum(isinstance(module, Linear4bit) for module in modules.values())
        + sum(len(fused_weights(module)) for _, module in experts_of(trained.get_base_model())),
        len({name.partition(".lora_A")[0] for name in modules if name.endswith(".lora_A.default")}),
        packing_is_exact(trained),
    )
    assert found == FAMILIES[architecture]
    assert type(trained.get_base_model().get_output_embeddings()) is torch.nn.Linear

    metrics = Tail(run.dir / "metrics.jsonl").read()
    losses = [row["loss"] for row in metrics if "loss" in row]
    assert len(losses) == 3 and all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert metrics[-1]["eval_loss"] < metrics[0]["eval_loss"]
    started_at_zero = [p for name, p in trained.named_parameters() if "lora_B" in name]
    assert all(parameter.abs().sum() > 0 for parameter in started_at_zero)

    warned = [event for event in Tail(run.dir / "events.jsonl").read() if event["kind"] == "warning"]
    assert bool(warned) is (found.in_four_bits == 0), "where the most stays in 16 bits it is told"

    elsewhere = _plain(base, run.adapter)
    assert torch.allclose(_logits(elsewhere), _logits(trained), atol=1e-4)
    said = answers(elsewhere, AutoTokenizer.from_pretrained(run.adapter), [QUESTION], 4)
    assert said == [Tail(run.dir / "samples.jsonl").read()[-1]["answer"]]
