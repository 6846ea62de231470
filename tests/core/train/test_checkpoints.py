"""A checkpoint is whole or does not exist: whenever the machine goes down, and when the disk is full."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import core.train.loop as loop
from core.errors import BudgetError
from core.recipe import CheckpointSettings
from core.runs.manifest import newest_valid, valid_checkpoints
from core.runs.store import Run
from core.runs.tail import Tail
from core.system.full_disk import free_some, is_disk_full
from core.train import checkpoints, ending, saving
from core.train.checkpoints import random_states, restore_random_states, save_checkpoint
from core.train.saving import DiskIsFull, Saver
from core.workspace import Workspace
from tests.core.train.sixteen_steps import sixteen_steps

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


class _Model(torch.nn.Module):
    def save_pretrained(self, folder: Path, **_: Any) -> None:
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights" * 100)


def _trainer() -> Any:
    states = SimpleNamespace(state_dict=lambda: {"exp_avg": torch.arange(100.0)})
    accelerator = SimpleNamespace(scaler=None)
    return SimpleNamespace(model=_Model(), optimizer=states, lr_scheduler=states, accelerator=accelerator)


def _dies_at(number: int, work: Callable[[], Any]) -> bool:
    """Do `work` in a process that is gone at its call `number` of the system's for files. Returns whether it was."""
    pid = os.fork()
    if pid == 0:
        calls = {"left": number}

        def watch(event: str, arguments: Any) -> None:
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
                calls["left"] -= 1
                if calls["left"] < 0:
                    os._exit(9)

        sys.addaudithook(watch)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_crash_at_any_moment_leaves_the_old_ones_or_a_whole_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, 1, _trainer(), 1, {"step": 1})
    seen, number, step = set(), 0, 2
    while _dies_at(number, lambda: save_checkpoint(folder, step, _trainer(), 1, {"step": step})):  # noqa: B023
        newest, passed_over = newest_valid(folder)
        assert newest is not None and newest.name in ("1", str(step)), number
        assert passed_over == []
        seen.add(newest.name)
        if newest.name != "1":  # begin again from the old one
            for each in folder.iterdir():
                checkpoints.shutil.rmtree(each)
            save_checkpoint(folder, 1, _trainer(), 1, {"step": 1})
        number += 1
    assert number > 15 and seen == {"1", str(step)}
    assert [path.name for path in folder.iterdir()] == [str(step)], "what the crashes left behind is gone"


def test_a_save_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = Run(tmp_path), {"now": 1000.0}
    monkeypatch.setattr(saving.time, "monotonic", lambda: clock["now"])
    saver = Saver(run, CheckpointSettings(every_steps=2))
    assert saver.is_due(1), "the first one comes early"
    saver.save(1, _trainer(), {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.torch, "save", _raising(NO_SPACE))
        saver.save(2, _trainer(), {})
        saver.save(3, _trainer(), {})
        with pytest.raises(DiskIsFull, match="step 4 could not be saved. The newest checkpoint is that of step 1"):
            saver.save(4, _trainer(), {}, last=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    assert not saver.is_due(4)
    clock["now"] += 61
    assert saver.is_due(5)
    saver.save(5, _trainer(), {})
    assert [path.name for path in valid_checkpoints(tmp_path / "checkpoints")] == ["5", "1"]
    assert [saver.is_due(6), saver.is_due(7)] == [True, False]
    said = [each["message"] for each in Tail(tmp_path / "events.jsonl").read() if each["kind"] == "warning"]
    assert said == [
        "The disk is full: step 2 could not be saved. The newest checkpoint is that of step 1. Training continues, "
        "and saving is retried every"
        f" 1 min. {free_some(run.workspace)}"
    ]


def test_a_save_for_which_memory_runs_out_is_tried_again_at_once_and_then_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, write, failures = Run(tmp_path), checkpoints._write, [NO_MEMORY]

    def fail(*given: Any) -> None:
        write(*given)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(checkpoints, "_write", fail)
    saver = Saver(run, CheckpointSettings(every_steps=2))
    saver.save(1, _trainer(), {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"], "with what was freed it went well"
    failures += [NO_MEMORY] * 2
    saver.save(2, _trainer(), {})
    assert [each["message"] for each in Tail(tmp_path / "events.jsonl").read() if each["kind"] == "warning"] == [
        "Memory ran out: step 2 could not be saved. The newest checkpoint is that of step 1. Training continues, and "
        "saving is retried every 1 min. Close other programs that use the memory."
    ]
    assert saver.trouble().startswith("Memory ran out. Training continues, but nothing more can be saved.")
    failures += [NO_MEMORY] * 2
    with pytest.raises(torch.OutOfMemoryError):
        saver.save(3, _trainer(), {}, last=True)
    saver.save(4, _trainer(), {})
    assert saver.trouble() == "" and saver.newest() == "The newest checkpoint is that of step 4."


@pytest.mark.full
@pytest.mark.usefixtures("unlimited_afterwards")
@pytest.mark.parametrize("adapter_too", [False, True])
def test_a_run_that_finds_no_memory_to_be_saved_says_what_there_is(
    tiny: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter_too: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = sixteen_steps(
        tiny, rows_file, Workspace.open(tmp_path), **{"train.max_steps": 4, "checkpoint.every_steps": 2}
    )
    write = checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", lambda *given: write(*given) if given[1] == 1 else _raising(NO_MEMORY)())
    if adapter_too:
        monkeypatch.setattr(ending, "flush_all", _raising(NO_MEMORY))
    with pytest.raises(BudgetError) as ended:
        loop.train(run)
    message = str(ended.value)
    kept = "It ran out again while step 4 was being saved. The newest checkpoint is that of step 1. "
    of_adapter = (
        "Memory ran out: the adapter could not be saved. The last checkpoint has the progress up to then. Close other "
        "programs that use the memory. Then resume the run."
    )
    assert message.startswith("Memory ran out within the budget of ")
    assert kept + (of_adapter if adapter_too else "The adapter itself is saved.") + " Raise the budget" in message
    assert run.has_adapter is not adapter_too


@pytest.mark.usefixtures("unlimited_afterwards")
def test_an_adapter_for_which_there_is_no_memory_at_the_end_is_told(
    tiny: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = sixteen_steps(tiny, rows_file, Workspace.open(tmp_path), **{"train.max_steps": 2})
    monkeypatch.setattr(ending, "flush_all", _raising(NO_MEMORY))
    with pytest.raises(BudgetError, match="^Memory ran out: the adapter could not be saved. The last checkpoint has"):
        loop.train(run)
    assert [path.name for path in valid_checkpoints(run.dir / "checkpoints")][0] == "2"


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_a_disk_that_will_be_too_small_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    saver = Saver(run, CheckpointSettings(keep=2))
    for step in (1, 2):
        saver.save(step, _trainer(), {})
    said = [each["message"] for each in Tail(tmp_path / "events.jsonl").read() if each["kind"] == "warning"]
    assert len(said) == 1
    assert said[0].startswith("The disk may soon be full: ") and "3 checkpoints of " in said[0]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (NO_SPACE, True),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), True),
        (RuntimeError("shapes do not match"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_full_disk_is_known_whoever_tells_of_it(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_known_when_torch_writes() -> None:
    with pytest.raises(Exception) as failed, open("/dev/full", "wb", buffering=0) as handle:  # noqa: PTH123
        torch.save({"state": torch.zeros(300_000)}, handle)
    assert is_disk_full(failed.value)


def test_random_states_come_back_through_a_file(tmp_path: Path) -> None:
    import random

    import numpy

    torch.save(random_states(), tmp_path / "random.pt")
    drawn = [random.random(), numpy.random.rand(), float(torch.rand(()))]
    restore_random_states(checkpoints.load_state(tmp_path / "random.pt"))
    assert [random.random(), numpy.random.rand(), float(torch.rand(()))] == drawn


@pytest.mark.usefixtures("unlimited_afterwards")
def test_a_disk_that_is_full_to_the_end_fails_the_run_and_keeps_what_it_can(
    tiny: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on without room; the last save is an error; freed, the run is resumed from its checkpoint."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = sixteen_steps(
        tiny, rows_file, Workspace.open(tmp_path), **{"train.max_steps": 4, "checkpoint.every_steps": 2}
    )
    write = checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", lambda *given: write(*given) if given[1] == 1 else _raising(NO_SPACE)())
    with pytest.raises(DiskIsFull) as ended:
        loop.train(run)
    assert str(ended.value) == (
        "The disk is full: step 4 could not be saved. The newest checkpoint is that of step 1. "
        f"{free_some(run.workspace)} Then resume the run. The adapter itself is saved."
    )
    assert run.has_adapter
    assert [json.loads(line)["step"] for line in (run.dir / "metrics.jsonl").open() if '"loss"' in line] == [1, 2, 3, 4]
    monkeypatch.setattr(ending, "flush_all", _raising(NO_SPACE))
    with pytest.raises(DiskIsFull, match="the adapter could not be saved"):
        ending.save_adapter(run, _Model().save_pretrained, SimpleNamespace(save_pretrained=lambda _: None))
    assert run.has_adapter, "the earlier one"
