"""The engine, end to end on a tiny model: what the run's folder says, stopping, failing, and the result itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from core.launching import submit
from core.recipe import Recipe, make_recipe
from core.runs.store import OPEN, Run, Tail
from core.runs.supervisor import Supervisor
from core.train.checkpoints import MANIFEST, valid_checkpoints
from core.workspace import ROOT, Workspace


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


def _wait(run: Run, seconds: float = 120) -> str:
    end = time.monotonic() + seconds
    while run.status().state in OPEN and time.monotonic() < end:
        time.sleep(0.1)
    return run.status().state


def _lines(run: Run, file: str) -> list[dict[str, Any]]:
    return Tail(run.dir / file).read()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def finished(workspace, tiny, rows_file) -> Run:
    """A run that went through to its end."""
    run = submit(_recipe(tiny, rows_file), workspace, Supervisor(workspace))
    assert _wait(run) == "finished", run.log_tail()
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


def test_memory_is_sampled_twice_a_second_as_resident_memory(finished) -> None:
    samples = _lines(finished, "memory.jsonl")
    assert samples
    gaps = [b["seconds"] - a["seconds"] for a, b in zip(samples, samples[1:], strict=False)]
    assert all(gap >= 0 for gap in gaps)
    assert all(row["process_bytes"] > 10**8 and row["allocated_bytes"] is None for row in samples)


def test_the_fallback_of_the_paged_optimizer_is_said_once(finished) -> None:
    said = [event for event in _lines(finished, "events.jsonl") if event["kind"] == "optimizer"]
    assert len(said) == 1
    assert "ordinary" in said[0]["message"]


def test_the_sample_prompts_are_answered_at_each_evaluation(finished) -> None:
    assert [row["step"] for row in _lines(finished, "samples.jsonl")] == [0, 3, 6]


def test_the_last_checkpoint_is_whole_and_a_damaged_one_does_not_exist(finished) -> None:
    checkpoints = finished.dir / "checkpoints"
    assert [path.name for path in valid_checkpoints(checkpoints)] == ["6"]
    manifest = json.loads((checkpoints / "6" / MANIFEST).read_text())
    assert {"optimizer.pt", "scheduler.pt", "random.pt", "adapter/adapter_model.safetensors"} <= set(manifest["files"])


def test_the_adapter_loads_with_plain_peft_and_answers_the_same(finished, tiny) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from core.build import keep_quantisation_exact
    from core.chat.generate import answers

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
    assert _wait(run) == "stopped", run.log_tail()
    step = run.status().step
    assert 2 <= step < 5000
    assert [path.name for path in valid_checkpoints(run.dir / "checkpoints")] == [str(step)]
    assert run.has_adapter


def test_a_worker_that_is_killed_leaves_an_interrupted_run_and_its_log(workspace, tiny, rows_file) -> None:
    supervisor = Supervisor(workspace)
    run = submit(_recipe(tiny, rows_file, **{"train.max_steps": 5000}), workspace, supervisor)
    while run.status().state == "preparing":
        time.sleep(0.05)
    supervisor.kill(run, patience_seconds=0)
    assert _wait(run) in ("interrupted", "stopped")
    assert run.status().message


def test_a_model_that_cannot_be_loaded_fails_the_run_and_says_why(workspace, tiny, rows_file, tmp_path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    run = submit(_recipe(broken, rows_file), workspace, Supervisor(workspace))
    assert _wait(run) == "failed"
    assert "cannot be loaded" in run.status().message
    assert not run.has_adapter


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of one process")
def test_memory_that_runs_out_saves_what_was_learned_and_says_so(workspace, tiny, rows_file) -> None:
    """The limit is the budget's own, put into force by the worker; a long row then needs more than there is."""
    script = (
        "import sys; from core.runs.store import Run; import core.train.loop as loop; import torch\n"
        "original = loop.NibbleTrainer.training_step\n"
        "def greedy(self, *args, **kwargs):\n"
        "    if self.state.global_step == 3: self.hoard = torch.ones(2**34)\n"
        "    return original(self, *args, **kwargs)\n"
        "loop.NibbleTrainer.training_step = greedy\n"
        "from core.train.worker import main; sys.exit(main(sys.argv[1]))\n"
    )

    class Greedy(Supervisor):
        def _start(self, run: Run) -> None:
            subprocess.run([sys.executable, "-c", script, str(run.dir)], cwd=ROOT, env={**os.environ}, check=False)

    run = submit(_recipe(tiny, rows_file, budget="2GiB"), workspace, Greedy(workspace))
    status = run.status()
    assert status.state == "failed"
    assert "Memory ran out within the budget of 2.00 GiB. What was learned up to step 3 is saved." in status.message
    assert run.has_adapter
    assert [path.name for path in valid_checkpoints(run.dir / "checkpoints")] == ["3"]


def test_an_evaluation_leaves_the_quantised_weights_and_the_gradients_as_they_were(adapted) -> None:
    """bitsandbytes would repack the weights on CPUs with AVX512-BF16, without a backward pass; see core/build.py."""
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


def test_the_split_of_a_step_into_micro_batches_does_not_change_the_trajectory(workspace, tiny, rows_file) -> None:
    """Effective batch 4 as 4 x 1 and as 1 x 4: the same losses, to the rounding of fp32."""
    losses = []
    for size in (4, 1):
        recipe = _recipe(tiny, rows_file, **{"train.micro_batch": size, "evaluation.prompts": []})
        run = submit(recipe, workspace, Supervisor(workspace))
        assert _wait(run) == "finished", run.log_tail()
        losses.append([row["loss"] for row in _lines(run, "metrics.jsonl") if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
