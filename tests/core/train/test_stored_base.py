"""A run, and the chat with it, over a base from its store: what they come to over the base's own files, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.workspace import Workspace
from tests.in_full import in_full
from tests.waiting import ended

KEPT = "A quantised copy of tiny is kept"
OPENED = "tiny was loaded from its quantised copy"


def _train(workspace: Workspace, tiny: Path, rows: Path, bits: int) -> Run:
    values = {"model": str(tiny), "data.path": str(rows), "quantization.bits": bits, "lora.rank": 4}
    more = {"train.effective_batch": 4, "train.max_steps": 3, "evaluation.times": 1, "lora.dropout": 0.1}
    run = submit(make_recipe({**values, **more}), workspace, Supervisor(workspace))
    assert ended(run) == "finished", run.log_tail()
    return run


def _came_to(run: Run) -> tuple[list[Any], bytes]:
    losses = [
        (row.get("loss"), row.get("grad_norm"), row.get("eval_loss")) for row in Tail(run.dir / "metrics.jsonl").read()
    ]
    return losses, (run.adapter / "adapter_model.safetensors").read_bytes()


def _said(run: Run) -> str:
    return " ".join(row["message"] for row in Tail(run.dir / "events.jsonl").read() if row["kind"] == "model")


@pytest.mark.parametrize("bits", [4, in_full(8)])
def test_a_run_over_a_stored_base_learns_the_same(
    bits: int, tiny: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(tmp_path)
    expected = _train(workspace, tiny, rows_file, bits)
    assert KEPT not in _said(expected), "so small a base gets no store by itself"
    monkeypatch.setenv("NIBBLE_STORES", "always")
    for sentence in (KEPT, OPENED):
        run = _train(workspace, tiny, rows_file, bits)
        assert sentence in _said(run)
        assert _came_to(run) == _came_to(expected)
