"""Runs that have ended, made of files alone: as a training leaves them, without the training."""

from __future__ import annotations

import json
import math
from typing import Any

from core.data.samples import find_sample
from core.data.store import keep
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.workspace import Workspace, write_json

MIB = 2**20


def ended_run(workspace: Workspace, name: str, state: str = "finished", steps: int = 60, **settings: Any) -> Run:
    """A run on the pirate sample that has come to `steps`; a higher `lora.rank` ends with a lower loss."""
    recipe = make_recipe({"name": name, "data.path": "pirate", "train.max_steps": steps, **settings})
    sample = find_sample("pirate")
    assert sample is not None
    kept = keep(workspace, sample.path)
    dataset = {"file": f"../../datasets/{kept.path.parent.name}/{kept.path.name}", "sha256": kept.sha256, "name": name}
    run = create_run(workspace, recipe, dataset, state=state)
    last = 4 / (1 + math.log2(recipe.lora.rank))
    losses = [last + (4 - last) * math.exp(-4 * step / steps) + 0.1 * math.sin(step) for step in range(1, steps + 1)]
    _append(run, "metrics", [_evaluation(0, 4.0), *(_metrics(at + 1, loss) for at, loss in enumerate(losses))])
    _append(run, "metrics", [_evaluation(steps, last)])
    _append(run, "memory", [_memory(second, steps) for second in range(steps)])
    _append(run, "samples", [{"step": 0, "prompt": "Hello?", "answer": "Hello."}])
    _append(run, "samples", [{"step": steps, "prompt": "Hello?", "answer": "Ahoy, matey!"}])
    run.event("start", f"Training of {name} begins.")
    (run.dir / "worker.log").write_text("Reading the data.\nThe last line.\n", encoding="utf-8")
    write_json(run.dir / "plan.json", {"budget_bytes": 900 * MIB, "peak_bytes": {"process": 700 * MIB}, "chosen": {}})
    write_json(run.dir / "result.json", _result(steps, losses[-1], last))
    run.write_status(state=state, step=steps, total=steps, started=1.7e9, ended=1.7e9 + steps)
    return run


def _append(run: Run, file: str, rows: list[dict[str, Any]]) -> None:
    with (run.dir / f"{file}.jsonl").open("a", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


def _metrics(step: int, loss: float) -> dict[str, Any]:
    speed = {"tokens": 800, "tokens_per_second": 800.0}
    return {"step": step, "time": 1.7e9 + step, "loss": loss, "lr": 2e-4, "grad_norm": 1.0, **speed}


def _evaluation(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "time": 1.7e9 + step, "eval_loss": loss, "eval_perplexity": math.exp(loss)}


def _memory(second: int, seconds: int) -> dict[str, Any]:
    used = int(650 * MIB * min(1.0, 0.6 + second / seconds))
    return {"seconds": float(second), "step": second, "process_bytes": used, "device_bytes": used}


def _result(steps: int, loss: float, evaluation: float) -> dict[str, Any]:
    figures = {"steps": steps, "final_loss": loss, "eval_loss_before": 4.0, "eval_loss": evaluation}
    sizes = {"peak_bytes": {"process": 650 * MIB}, "predicted_peak_bytes": {"process": 700 * MIB}}
    return {
        **figures,
        **sizes,
        "budget_bytes": 900 * MIB,
        "seconds": steps,
        "tokens": 800 * steps,
        "tokens_per_second": 800,
    }
