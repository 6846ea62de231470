"""The engine, end to end on a tiny model: what the run's folder says, stopping, failing, and the result itself."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from core.launch.submit import submit
from core.recipe import Recipe, make_recipe
from core.runs.manifest import MANIFEST, valid_checkpoints
from core.runs.store import OPEN, Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.workspace import ROOT, Workspace
from tests.waiting import ended


def _recipe(tiny: Path, rows: Path, **settings: Any) -> Recipe:
    values = {
        "model": str(tiny),
        "data.path": str(rows),
        "lora.rank": 4,
        "train.effective_batch": 4,
        "train.learning_rate": 0.01,
        "train.max_steps": 6,
        "evaluation.prompts": ["hello there"],
        "evaluation.max_new_tokens": 4,
        "evaluation.times": 2,
    }
    return make_recipe({**values, **settings})


def _lines(run: Run, file: str) -> list[dict[str, Any]]:
    return Tail(run.dir / file).read()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def finished(workspace, tiny, rows_file) -> Run:
    """A run that went through to its end."""
    run = submit(_recipe(tiny, rows_file), workspace, Supervisor(workspace))
    assert ended(run) == "finished", run.log_tail()
    return run


def test_a_run_folder_holds_what_the_design_promises(finished) -> None:
    names = {path.name for path in finished.dir.iterdir()}
    assert names >= {
        "recipe.yaml", "plan.json", "status.json", "metrics.jsonl", "memory.jsonl", "events.jsonl", "samples.jsonl",
        "labels.json", "worker.log", "checkpoints", "adapter",
    }  # fmt: skip


def test_the_metrics_start_with_the_base_and_hold_every_step(finished) -> None:
    metrics = _lines(finished, "metrics.jsonl")
    assert metrics[0]["step"] == 0 and metrics[0]["eval_loss"] > 0
    steps = [row for row in metrics if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "lr", "grad_norm", "tokens", "tokens_per_second"):
        assert all(row[key] is not None and row[key] >= 0 for row in steps)
    assert [row["step"] for row in metrics if "eval_loss" in row] == [0, 3, 6]
    assert metrics[-1]["eval_loss"] < metrics[0]["eval_loss"]
    assert metrics[0]["eval_perplexity"] == pytest.approx(math.exp(metrics[0]["eval_loss"]))
    result = finished.result()
    assert result["eval_perplexity"] == metrics[-1]["eval_perplexity"]
    assert result["best"] == {"step": 6, "eval_loss": metrics[-1]["eval_loss"]}


def test_memory_is_sampled_twice_a_second_as_resident_memory(finished) -> None:
    samples = _lines(finished, "memory.jsonl")
    assert samples
    gaps = [b["seconds"] - a["seconds"] for a, b in zip(samples, samples[1:], strict=False)]
    assert all(gap >= 0 for gap in gaps)
    assert all(row["process_bytes"] > 10**8 and row["allocated_bytes"] is None for row in samples)


def test_the_fallback_of_the_paged_optimizer_is_said_once(finished) -> None:
    said = [event for event in _lines(finished, "events.jsonl") if event["kind"] == "optimizer"]
    assert len(said) == 1
    assert "not paged" in said[0]["message"]


def test_the_sample_prompts_are_answered_at_each_evaluation(finished) -> None:
    assert [row["step"] for row in _lines(finished, "samples.jsonl")] == [0, 3, 6]


def test_the_last_checkpoint_is_whole_and_a_damaged_one_does_not_exist(finished) -> None:
    checkpoints = finished.dir / "checkpoints"
    assert [path.name for path in valid_checkpoints(checkpoints)] == ["6", "1"], "the first shows that saving works"
    manifest = json.loads((checkpoints / "6" / MANIFEST).read_text())
    assert {"optimizer.pt", "scheduler.pt", "random.pt", "adapter/adapter_model.safetensors"} <= set(manifest["files"])


def test_the_adapter_loads_with_plain_peft_and_answers_the_same(finished, tiny) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from core.generation.generate import answers
    from core.model.load import keep_quantisation_exact

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    base = AutoModelForCausalLM.from_pretrained(tiny, quantization_config=quantization, dtype=torch.float32)
    keep_quantisation_exact(base)
    model = PeftModel.from_pretrained(base, finished.adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(finished.adapter)
    said = answers(model, tokenizer, ["hello there"], 4)
    assert said == [_lines(finished, "samples.jsonl")[-1]["answer"]]


def test_a_stop_saves_the_checkpoint_and_the_adapter(workspace, tiny, rows_file) -> None:
    supervisor = Supervisor(workspace)
    run = submit(_recipe(tiny, rows_file, **{"train.max_steps": 5000}), workspace, supervisor)
    while run.status().step < 2 and run.status().state in OPEN:
        time.sleep(0.05)
    supervisor.stop(run)
    assert ended(run) == "stopped", run.log_tail()
    step = run.status().step
    assert 2 <= step < 5000
    assert [path.name for path in valid_checkpoints(run.dir / "checkpoints")] == [str(step), "1"]
    assert run.has_adapter


def test_a_worker_that_is_killed_leaves_an_interrupted_run_and_its_log(workspace, tiny, rows_file) -> None:
    supervisor = Supervisor(workspace)
    run = submit(_recipe(tiny, rows_file, **{"train.max_steps": 5000}), workspace, supervisor)
    while run.status().state == "preparing":
        time.sleep(0.05)
    supervisor.kill(run)
    assert ended(run) in ("interrupted", "stopped")
    assert run.status().message


def test_a_model_that_cannot_be_loaded_fails_the_run_and_says_why(workspace, tiny, rows_file, tmp_path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "hidden_act": "nonesuch"}))
    run = submit(_recipe(broken, rows_file), workspace, Supervisor(workspace))
    assert ended(run) == "failed"
    assert "cannot be loaded" in run.status().message
    assert not run.has_adapter


def _with_a_fault(fault: str, recipe: Recipe, workspace: Workspace) -> Run:
    """A run whose worker's `summed_loss` goes through `fault`: the body of a function of the trainer and its inputs."""
    script = (
        "import sys, torch; import core.train.loop as loop\n"
        "original = loop.NibbleTrainer.summed_loss\n"
        "def faulty(self, inputs):\n"
        f"    {fault}\n"
        "    return original(self, inputs)\n"
        "loop.NibbleTrainer.summed_loss = faulty\n"
        "from core.train.worker import main; sys.exit(main(sys.argv[1]))\n"
    )

    class Faulty(Supervisor):
        def start_worker(self, run: Run) -> None:
            subprocess.run([sys.executable, "-c", script, str(run.dir)], cwd=ROOT, env={**os.environ}, check=False)

    return submit(recipe, workspace, Faulty(workspace))


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of one process")


@ON_LINUX
def test_memory_that_runs_out_in_mid_run_makes_the_micro_batch_smaller(workspace, tiny, rows_file) -> None:
    """The limit is the budget's own, put into force by the worker: from step 4 on, two at once ask for 64 GiB."""
    fault = (
        "two = (inputs['position_ids'] == 0).sum() > 1; hoard = torch.ones(2**34) if self.model.training and two "
        "and self.state.global_step >= 3 else None"
    )
    recipe = _recipe(tiny, rows_file, budget="2GiB", **{"train.micro_batch": 4, "evaluation.prompts": []})
    run = _with_a_fault(fault, recipe, workspace)
    assert run.status().state == "finished", run.log_tail()
    plan = run.plan()
    assert plan["chosen"]["micro_batch"] == 4
    assert [(each["step"], each["micro_batch"], each["accumulation"]) for each in plan["changed"]] == [
        (4, 2, 2), (4, 1, 4),
    ]  # fmt: skip
    said = [event["message"] for event in _lines(run, "events.jsonl") if event["kind"] == "warning"]
    assert said[0] == (
        "Step 4: memory ran out (64.00 GiB more was requested); the step is repeated, now with micro-batch 2, 2 "
        "times per step, instead of 4."
        " The result stays the same."
    )
    assert [row["step"] for row in _lines(run, "metrics.jsonl") if row.get("loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.full
@ON_LINUX
def test_when_nothing_more_can_be_saved_what_was_learned_is_kept_and_a_budget_named(workspace, tiny, rows_file) -> None:
    fault = "hoard = torch.ones(2**34) if self.state.global_step == 3 and self.model.training else None"
    run = _with_a_fault(fault, _recipe(tiny, rows_file, budget="2GiB"), workspace)
    status = run.status()
    assert status.state == "failed"
    assert status.message == (
        "Memory ran out within the budget of 2.00 GiB, even with micro-batch 1 and full gradient checkpointing. "
        "Progress up to step 3 is saved. Raise the budget to 66.00 GiB or more, or lower data.max_length or "
        "lora.rank."
    )
    assert run.has_adapter
    assert [path.name for path in valid_checkpoints(run.dir / "checkpoints")] == ["3", "1"]
    assert run.plan()["changed"][-1]["checkpointing"] == "full"


@pytest.mark.full
def test_a_loss_that_stays_lost_ends_the_run_at_its_last_checkpoint(workspace, tiny, rows_file) -> None:
    fault = (
        "if self.model.training and self.state.global_step in (1, 4, 5, 6): return original(self, inputs) * torch.nan"
    )
    settings = {"checkpoint.every_steps": 3, "train.max_steps": 12, "data.eval_fraction": 0.0}
    run = _with_a_fault(fault, _recipe(tiny, rows_file, **settings, **{"train.micro_batch": 2}), workspace)
    status = run.status()
    assert status.state == "failed"
    assert (
        "NaN or infinite in three steps in a row, up to step 7. The adapter of the last checkpoint, step 6"
        in status.message
    )
    assert "train.learning_rate (it is 0.01; try 0.003), or check rows " in status.message
    said = [event["message"] for event in _lines(run, "events.jsonl") if event["kind"] == "warning"]
    assert said == [
        f"Step {step}: the loss was NaN or infinite; the step was skipped ({row} in a row)."
        for step, row in ((2, 1), (5, 1), (6, 2), (7, 3))
    ]
    losses = [row["loss"] is not None for row in _lines(run, "metrics.jsonl") if "loss" in row]
    assert losses == [True, False, True, True, False, False, False]
    assert run.has_adapter and run.result()["skipped_steps"] == 4


def test_the_best_adapter_is_kept_and_a_run_without_progress_stops_early(workspace, tiny, rows_file) -> None:
    """A rate far too high: after its best evaluation the run only gets worse."""
    from safetensors.torch import load_file

    settings = {"train.learning_rate": 1.0, "train.schedule": "constant", "train.max_steps": 40}
    often = {"evaluation.times": 40, "evaluation.patience": 3, "evaluation.prompts": [], "checkpoint.every_steps": 1}
    recipe = _recipe(tiny, rows_file, **settings, **often, **{"checkpoint.keep": 50})
    run = submit(recipe, workspace, Supervisor(workspace))
    assert ended(run) == "finished", run.log_tail()
    measured = {row["step"]: row["eval_loss"] for row in _lines(run, "metrics.jsonl") if "eval_loss" in row}
    best = run.result()["best"]
    assert best == {"step": min(list(measured)[1:], key=measured.__getitem__), "eval_loss": best["eval_loss"]}
    assert best["eval_loss"] == measured[best["step"]]
    assert run.result()["steps"] == best["step"] + 3 < 40
    assert "Stopped early" in [event for event in _lines(run, "events.jsonl") if event["kind"] == "early"][0]["message"]
    kept = load_file(run.dir / "best" / "adapter_model.safetensors")
    saved = load_file(run.dir / "checkpoints" / str(best["step"]) / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
    assert (run.dir / "best" / "tokenizer.json").exists()


def test_an_evaluation_leaves_the_quantised_weights_and_the_gradients_as_they_were(adapted) -> None:
    """bitsandbytes would repack the weights on CPUs with AVX512-BF16, without a backward pass; see model/load.py."""
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in adapted.modules() if isinstance(module, Linear4bit)]
    before = [layer.weight.data.clone() for layer in layers]
    for layer in layers:
        assert layer.weight.quant_state.nested, "double quantisation is on"
    ids = torch.arange(3, 20)[None]
    adapted.eval()
    with torch.no_grad():
        adapted(input_ids=ids)
    adapted.train()
    adapted(input_ids=ids, labels=ids).loss.backward()
    for layer, weight in zip(layers, before, strict=True):
        assert torch.equal(layer.weight.data, weight)
        assert layer.weight.quant_state.nested
    first = next(p for name, p in adapted.named_parameters() if "layers.0.self_attn.q_proj.lora_B" in name)
    assert first.grad is not None and first.grad.abs().sum() > 0
