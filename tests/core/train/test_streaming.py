"""Runs on the CPU whose layers come from a file: the resident run's numbers, resumed, and with a disk that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import core.train.loop as loop
from core.errors import RecipeError, RunError, TrainingError
from core.launch.submit import submit
from core.model.stream import from_file
from core.model.stream.from_file import FromFile
from core.recipe import make_recipe
from core.runs.manifest import valid_checkpoints
from core.runs.resume import resume
from core.runs.store import Run
from core.runs.tail import Tail
from core.train.watcher import Watcher
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly
from tests.tiny import tiny_model

STEPS = 4


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch, unlimited_afterwards: None) -> None:
    """Also where there is a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory, rows_file: Path) -> dict[str, Any]:
    """A short run of a Llama of five layers."""
    folder = tiny_model(tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=5)
    return {
        "model": str(folder),
        "data.path": str(rows_file),
        "lora.rank": 4,
        "lora.dropout": 0.1,
        "train.effective_batch": 4,
        "train.max_steps": STEPS,
        "train.learning_rate": 0.01,
        "evaluation.times": 1,
        "evaluation.prompts": ["hello there"],
        "evaluation.max_new_tokens": 4,
    }


@pytest.fixture(scope="module")
def resident(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run whose base stays where it is."""
    run = queued(values, tmp_path_factory.mktemp("resident"), 0)
    assert loop.train(run) == "finished"
    return run


def queued(values: dict[str, Any], folder: Path, layers: int = 4) -> Run:
    """A run that is still to be trained."""
    recipe = make_recipe({**values, "train.streamed_layers": layers})
    return submit(recipe, Workspace.open(folder), QueueOnly())  # type: ignore[arg-type]


def is_the_same(run: Run, other: Run) -> None:
    """Losses, answers and the adapter."""
    ours, theirs = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, other))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    losses = [
        [row["loss"] for row in Tail(each.dir / "metrics.jsonl").read() if "loss" in row] for each in (run, other)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    last = [
        (Tail(each.dir / "samples.jsonl").read()[-1]["answer"], each.result()["eval_loss"]) for each in (run, other)
    ]
    assert last[0] == last[1]


def test_a_run_from_a_file_learns_the_same_and_leaves_no_file(values, resident, tmp_path) -> None:
    run = queued(values, tmp_path)
    assert loop.train(run) == "finished"
    is_the_same(run, resident)
    chosen = run.plan()["chosen"]
    assert (chosen["streamed_layers"], chosen["streamed_from"]) == (4, "disk")
    assert run.plan()["breakdown"]["slots"] > 0 and run.plan()["peak_bytes"] != resident.plan()["peak_bytes"]
    assert {each.name for each in run.dir.iterdir()} == {each.name for each in resident.dir.iterdir()}
    rows = [row for row in Tail(run.dir / "metrics.jsonl").read() if "loss" in row]
    assert all(row["streamed_bytes_per_second"] > 0 and 0 < row["stream_wait_share"] < 1 for row in rows)
    assert "stream_wait_share" not in Tail(resident.dir / "metrics.jsonl").read()[-2]
    told = [row["message"] for row in Tail(run.dir / "events.jsonl").read() if row["kind"] == "model"]
    assert any(each.startswith("4 of 5 layers (") and each.endswith("streamed from a file.") for each in told)


def test_a_stopped_one_goes_on_as_the_resident_one_would(values, resident, tmp_path, monkeypatch) -> None:
    write = Watcher.write_step

    def and_stop(self: Watcher, at: int, logs: dict[str, float]) -> None:
        write(self, at, logs)
        if at == 2:
            self.run.request("stop")

    run = queued(values, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "write_step", and_stop)
        assert loop.train(run) == "stopped"
    resume(run, QueueOnly(Workspace.open(tmp_path)))
    assert loop.train(run) == "finished"
    is_the_same(run, resident)


def test_a_disk_that_fails_in_mid_pass_costs_no_step_that_was_done(values, tmp_path, monkeypatch) -> None:
    read, stepped, write_only = FromFile._read, [], os.open(os.devnull, os.O_WRONLY)
    write = Watcher.write_step

    def and_note(self: Watcher, at: int, logs: dict[str, float]) -> None:
        write(self, at, logs)
        stepped.append(at)

    def fails(self: FromFile, *given: Any) -> None:
        if len(stepped) == 2:
            os.dup2(write_only, self._file.fileno())  # the next read meets an error of the system's
        read(self, *given)

    run = queued(values, tmp_path)
    monkeypatch.setattr(Watcher, "write_step", and_note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FromFile, "_read", fails)
        with pytest.raises(TrainingError, match=r"cannot be read: .*Progress up to step 2 is saved.*then resume"):
            loop.train(run)
    assert run.has_adapter and valid_checkpoints(run.dir / "checkpoints")[0].name == "2"
    run.write_status(state="failed")
    resume(run, QueueOnly(Workspace.open(tmp_path)))
    assert loop.train(run) == "finished" and stepped == [1, 2, 3, 4]


def test_a_full_disk_is_told_before_anything_is_trained(values, tmp_path, monkeypatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(from_file, "_write", full)
    with pytest.raises(RunError, match="No space left on device. Free some space"):
        loop.train(queued(values, tmp_path))


@pytest.mark.parametrize("other", [{"lora.dora": True}, {"train.sharded": True, "train.devices": 2}])
def test_what_it_cannot_be_combined_with_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=rf"train\.streamed_layers cannot be combined with {next(iter(other))}"):
        make_recipe({"train.streamed_layers": 2, **other})
