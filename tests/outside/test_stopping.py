"""A run that is stopped where it happens to be, and resumed, against one that was let go on: the same, bit for bit."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.outside.cases import USUAL
from tests.outside.command import Trained, ask, command, environment, write_recipe
from tests.outside.rows import rows_for
from tests.tiny import tiny_model, write_jsonl

pytestmark = pytest.mark.full
# More steps than are ever waited for; dropout and NEFTune draw numbers in each, packed micro-batches or not.
ASKED = {
    **USUAL,
    "train.max_steps": 20_000,
    "train.effective_batch": 3,
    "train.micro_batch": 1,
    "train.schedule": "cosine",
    "train.neftune_alpha": 5,
    "lora.dropout": 0.2,
    "checkpoint.every_steps": None,
    "checkpoint.every_minutes": 60,
}
SECONDS = 300


def _until(happens: Callable[[], Any], ends: subprocess.Popen[str]) -> None:
    end = time.monotonic() + SECONDS
    while not happens():
        assert ends.poll() is None, ends.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def _goes_on_to(workspace: Path, step: int, *words: str) -> Trained:
    """Train by the command `words` until `step` is done, then stop it from beside."""
    asked = command(*words, "--data-dir", str(workspace))
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(asked, env=environment(), cwd=workspace, **piped) as going:

        def done() -> bool:
            files = list(workspace.glob("runs/*/metrics.jsonl"))
            return bool(files) and f'"step": {step}, ' in files[0].read_text("utf-8")

        _until(done, going)
        (folder,) = (workspace / "runs").iterdir()
        assert ask(workspace, "stop", folder.name)["state"] == "stopped"
        going.communicate(timeout=SECONDS)
        assert going.returncode == 0
    return Trained(folder, workspace, {"run": folder.name})


def _numbers(run: Trained) -> list[dict[str, Any]]:
    return [{key: step[key] for key in ("step", "loss", "lr", "grad_norm", "tokens")} for step in run.steps]


def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    rows = write_jsonl(tmp_path / "rows.jsonl", rows_for(AutoTokenizer.from_pretrained(base), 96))
    recipe = write_recipe(tmp_path, {"model": str(base), "data.path": str(rows), **ASKED})
    one, two = tmp_path / "one", tmp_path / "two"
    for workspace in (one, two):
        workspace.mkdir()
    stopped = _goes_on_to(one, 5, "train", str(recipe))
    first = len(stopped.steps)
    resumed = _goes_on_to(one, first + 20, "resume", stopped.id)
    whole = _goes_on_to(two, first + 20, "train", str(recipe))
    one_by_one, in_one_go = _numbers(resumed), _numbers(whole)
    assert [step["step"] for step in one_by_one] == list(range(1, len(one_by_one) + 1))
    shared = min(len(one_by_one), len(in_one_go))
    assert shared >= first + 20
    assert one_by_one[:shared] == in_one_go[:shared]
