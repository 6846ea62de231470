"""Live pages: the cost of one tick at 100, 10,000 and 1,000,000 steps, and the time to list ten thousand runs.

A tick is what the server does for a page every second while a run trains: it reads the lines that were appended,
draws them, and puts what changed into JSON. The three lengths take turns, so other load on the machine slows all
alike.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.run_view.drawings import RunDrawings
from app.runs.table_html import FRESH_SECONDS, RunsTable, TableView
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.index import index_of
from core.runs.store import Run
from core.system.process import process_started
from core.workspace import Workspace

LENGTHS = (100, 10_000, 1_000_000)
ROUNDS = 60
STEPS_A_TICK = 1
TICK_BAR = 1.5
RUNS = 10_000
LIST_BAR_SECONDS = 1.0
GIB = 2**30


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_of_ticks(Workspace.open(Path(folder) / "long"), seed), *_of_lists(Path(folder) / "many", seed)]


def _of_ticks(workspace: Workspace, seed: int) -> list[dict[str, Any]]:
    runs = {steps: _training(workspace, steps, seed) for steps in LENGTHS}
    live = RunDrawings("cpu")
    opened = {steps: _open(live, run) for steps, run in runs.items()}
    taken: dict[int, list[float]] = {steps: [] for steps in LENGTHS}
    for tick in range(ROUNDS):
        for steps, run in runs.items():
            _append(run, range(steps + tick + 1, steps + tick + 2), seed)
            taken[steps].append(_tick(live, run))
    cost = {steps: 1000 * statistics.median(times) for steps, times in taken.items()}
    first, last = cost[LENGTHS[0]], cost[LENGTHS[-1]]
    rows = [_row(f"a tick at {steps:,} steps", cost[steps], "ms", first) for steps in LENGTHS]
    rows.append(_row("a tick, the longest against the shortest", last / first, "times", 1.0, TICK_BAR))
    shown, whole = opened[LENGTHS[-1]]
    reference = opened[LENGTHS[0]][0]
    rows.append(_row(f"opening {LENGTHS[-1]:,} steps: the page answers", shown, "s", reference))
    rows.append(_row(f"opening {LENGTHS[-1]:,} steps: all is drawn", whole, "s", reference))
    return rows


def _of_lists(folder: Path, seed: int) -> list[dict[str, Any]]:
    workspace = Workspace.open(folder)
    _many(workspace, seed)
    read, _ = _list(workspace)
    first, again = _list(workspace)
    return [
        _row(f"{RUNS:,} runs, listed without the index' file", read, "s", None),
        _row(f"{RUNS:,} runs, listed after a start", first, "s", read, LIST_BAR_SECONDS),
        _row(f"{RUNS:,} runs, found and sorted anew", again, "s", read, LIST_BAR_SECONDS),
    ]


def _row(name: str, value: float, unit: str, reference: float | None, bar: float | None = None) -> dict[str, Any]:
    holds = None if bar is None else value <= bar
    return {"name": name, "value": value, "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def _training(workspace: Workspace, steps: int, seed: int) -> Run:
    """A run that this process trains, at some step."""
    recipe = make_recipe({"name": f"{steps} steps", "data.path": "pirate"})
    run = create_run(workspace, recipe, {"file": "x", "sha256": "0", "name": "pirate"})
    _append(run, range(1, steps + 1), seed)
    me = {"pid": os.getpid(), "pid_started": process_started(os.getpid()), "started": time.time() - steps}
    run.write_status(state="training", step=steps, total=2 * steps, **me)
    return run


def _append(run: Run, steps: range, seed: int) -> None:
    """What a worker writes in these steps of half a second each: a line of metrics and a line of memory."""
    draw = random.Random(f"{seed} {steps.start}")
    with (run.dir / "metrics.jsonl").open("a") as metrics, (run.dir / "memory.jsonl").open("a") as memory:
        metrics.writelines(json.dumps(_metrics(step, draw)) + "\n" for step in steps)
        memory.writelines(json.dumps(_memory(step, draw)) + "\n" for step in steps)


def _metrics(step: int, draw: random.Random) -> dict[str, Any]:
    loss = 1 + 3 / math.sqrt(step) + draw.gauss(0, 0.1)
    speed = {"tokens": 4096, "tokens_per_second": round(4096 / draw.uniform(0.9, 1.1), 1)}
    return {"step": step, "time": 1.7e9 + step, "loss": loss, "lr": 2e-4, "grad_norm": draw.random(), **speed}


def _memory(step: int, draw: random.Random) -> dict[str, Any]:
    used = int((8 + draw.random() / 10) * GIB)
    columns = {"allocated_bytes": used - GIB, "reserved_bytes": used - GIB // 2, "process_bytes": used}
    return {"seconds": step / 2, "step": step, **columns, "device_bytes": used}


def _open(live: RunDrawings, run: Run) -> tuple[float, float]:
    """Seconds until the page of `run` shows something, and until it shows all."""
    began = time.perf_counter()
    live.parts(run)
    shown = time.perf_counter() - began
    while "Reading the run" in live.parts(run)["head"]:
        pass
    return shown, time.perf_counter() - began


def _tick(live: RunDrawings, run: Run) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    json.dumps(live.parts(run))
    return time.process_time() - began


def _list(workspace: Workspace) -> tuple[float, float]:
    """Seconds until a server that has just started has listed the runs, and to find and sort them again."""
    index_of.cache_clear()
    table, taken = RunsTable(workspace), []
    for asked in (TableView(), *[TableView(words="run 9", sort=column) for column in ("eval", "name", "memory")]):
        time.sleep(FRESH_SECONDS)
        began = time.perf_counter()
        assert table.page(asked, "").runs == RUNS
        taken.append(time.perf_counter() - began)
    return taken[0], statistics.median(taken[1:])


def _many(workspace: Workspace, seed: int) -> None:
    """Ten thousand runs that, according to their files, ended an hour ago."""
    draw = random.Random(seed)
    recipe = make_recipe({"data.path": "pirate"})
    first = create_run(workspace, recipe, {"file": "x", "sha256": "0", "name": "pirate"}, state="finished")
    text = (first.dir / "recipe.yaml").read_text(encoding="utf-8")
    for number in range(1, RUNS):
        folder = workspace.runs / f"20250101-000000-{number:04x}-run"
        folder.mkdir()
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
        for name, value in _said(number, draw):
            (folder / name).write_text(json.dumps(value), encoding="utf-8")
        os.utime(folder, (time.time() - 3600,) * 2)


def _said(number: int, draw: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    before, peak = 2 + draw.random(), {"process": int(draw.uniform(1, 20) * GIB)}
    yield "labels.json", {"name": f"run {number}", "note": "", "tags": []}
    yield "status.json", {"state": "finished", "step": 100, "total": 100}
    result = {"final_loss": before / 2, "eval_loss_before": before, "eval_loss": before / 2, "seconds": 60.0}
    yield "result.json", {**result, "peak_bytes": peak, "predicted_peak_bytes": peak}
