"""What a run of the fault suite has come to, and whether two have come to the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.runs.manifest import newest_valid
from core.runs.store import Run
from core.runs.tail import Tail


def lines(run: Run, file: str) -> list[dict[str, Any]]:
    """What a .jsonl file of `run` says."""
    return Tail(run.dir / file).read()


def said(run: Run, kind: str) -> list[str]:
    """The events of a kind."""
    return [each["message"] for each in lines(run, "events.jsonl") if each["kind"] == kind]


def losses(run: Run) -> list[tuple[Any, ...]]:
    """Every line of the metrics, without what time has a part in."""
    rows = lines(run, "metrics.jsonl")
    return [(row["step"], row.get("loss"), row.get("lr"), row.get("grad_norm"), row.get("eval_loss")) for row in rows]


def weights(folder: Path) -> bytes:
    """An adapter's weights, bit for bit."""
    return (folder / "adapter_model.safetensors").read_bytes()


def is_the_same(run: Run, other: Run) -> None:
    """The final weights, the best ones, every loss and every answer."""
    assert weights(run.adapter) == weights(other.adapter)
    assert weights(run.dir / "best") == weights(other.dir / "best")
    assert losses(run) == losses(other)
    assert lines(run, "samples.jsonl") == lines(other, "samples.jsonl")
    assert run.result()["best"] == other.result()["best"]


def last_checkpoint(run: Run) -> int | None:
    """The step of the newest whole checkpoint; nothing newer may look like one and not be whole."""
    newest, passed_over = newest_valid(run.dir / "checkpoints")
    assert passed_over == [], run.id
    return int(newest.name) if newest is not None else None
