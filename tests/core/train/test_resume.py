"""A run that is resumed ends as if nothing had happened: the same numbers, bit for bit, whatever ended it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import core.train.loop as loop
from core.cli.main import main
from core.errors import RecipeError, RunError
from core.runs.manifest import MANIFEST, newest_valid, valid_checkpoints
from core.runs.resume import resume
from core.runs.store import OPEN, Run
from core.runs.tail import Tail
from core.system.hardware import Device
from core.train.resume import ResumePoint, cut_back
from core.train.watcher import Watcher
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly
from tests.core.train.patched_supervisor import PatchedSupervisor
from tests.core.train.sixteen_steps import STEPS, sixteen_steps


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch, unlimited_afterwards: None) -> None:
    """Also where there is a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def _lines(run: Run, file: str) -> list[dict[str, Any]]:
    return Tail(run.dir / file).read()


def _losses(run: Run) -> list[tuple[int, Any, Any, Any]]:
    rows = _lines(run, "metrics.jsonl")
    return [(row["step"], row.get("loss"), row.get("lr"), row.get("eval_loss")) for row in rows]


def _is_the_same(run: Run, other: Run) -> None:
    """The adapter, the losses, the answers, the optimizer's states and the random generators at the end."""
    ours, theirs = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, other))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert _losses(run) == _losses(other)
    assert _lines(run, "samples.jsonl") == _lines(other, "samples.jsonl")
    last = [each.dir / "checkpoints" / str(STEPS) for each in (run, other)]
    states = [torch.load(folder / "optimizer.pt")["state"] for folder in last]
    for number, state in states[0].items():
        assert all(torch.equal(value, states[1][number][name]) for name, value in state.items())
    assert torch.equal(*[torch.load(folder / "random.pt")["torch"] for folder in last])
    kept = [json.loads((folder / "progress.json").read_text()) for folder in last]
    assert kept[0]["health"] == kept[1]["health"]
    assert kept[0]["evaluator"] == kept[1]["evaluator"]
    assert kept[0]["tally"]["tokens"] == kept[1]["tally"]["tokens"]


def _stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    write = Watcher.write_step

    def and_stop(self: Watcher, at: int, logs: dict[str, float]) -> None:
        write(self, at, logs)
        if at == step:
            self.run.request("stop")

    monkeypatch.setattr(Watcher, "write_step", and_stop)


def _train_in_two_parts(run: Run, workspace: Workspace) -> None:
    """Stop after step 8, and go on to the end."""
    with pytest.MonkeyPatch.context() as patch:
        _stop_after(patch, 8)
        assert loop.train(run) == "stopped"
    resume(run, QueueOnly(workspace))
    assert loop.train(run) == "finished"


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, rows_file: Path, workspace: Workspace) -> Run:
    """The run in which nothing goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        run = sixteen_steps(tiny, rows_file, workspace)
        assert loop.train(run) == "finished"
        run.write_status(state="finished")
    return run


@pytest.mark.parametrize("step", [4, 6, 12])
def test_a_stopped_run_goes_on_as_if_it_had_not(tiny, rows_file, workspace, undisturbed, monkeypatch, step) -> None:
    """In the middle of the first pass over the data, at an evaluation and between two; and in the second pass."""
    run = sixteen_steps(tiny, rows_file, workspace)
    with monkeypatch.context() as patch:
        _stop_after(patch, step)
        assert loop.train(run) == "stopped"
    assert run.status().step == step
    resume(run, QueueOnly(workspace))
    assert run.status().state == "queued"
    assert loop.train(run) == "finished"
    assert run.status().resumed_from_step == step
    if step == 6:  # it was looked at when it was stopped, which the other run was not
        for file in ("metrics.jsonl", "samples.jsonl"):
            path = run.dir / file
            path.write_text("".join(f"{json.dumps(row)}\n" for row in _lines(run, file) if not _extra(row, step)))
    _is_the_same(run, undisturbed)
    assert (
        "Resumed from step" in [each["message"] for each in _lines(run, "events.jsonl") if each["kind"] == "resumed"][0]
    )
    seconds = [row["seconds"] for row in _lines(run, "memory.jsonl")]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", pytest.param("paged_lion_32bit", marks=pytest.mark.full)])
def test_states_of_bitsandbytes_optimizers_come_back(tiny, rows_file, workspace, optimizer) -> None:
    # Tensors of fewer than 4,096 numbers have no 8-bit states.
    settings = {"train.optimizer": optimizer, "lora.rank": 64, "evaluation.prompts": [], "data.eval_fraction": 0.0}
    whole = sixteen_steps(tiny, rows_file, workspace, **settings)
    assert loop.train(whole) == "finished"
    run = sixteen_steps(tiny, rows_file, workspace, **settings)
    _train_in_two_parts(run, workspace)
    ours, theirs = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert _losses(run) == _losses(whole)
    states = torch.load(run.dir / "checkpoints" / "16" / "optimizer.pt")["state"].values()
    kinds = {each["__bnb_optimizer_quant_state__"]["state1"].dtype for each in states}
    assert (torch.uint8 in kinds) is ("8bit" in optimizer)


@pytest.mark.full
def test_a_run_that_had_become_more_frugal_stays_so(tiny, rows_file, workspace, monkeypatch) -> None:
    """At step 3 there is no room for two at once. Resumed after step 8, where there would be, it goes one by one."""
    compute = loop.NibbleTrainer.summed_loss

    def short(self: Any, inputs: Any) -> torch.Tensor:
        if self.model.training and self.state.global_step == 2 and (inputs["position_ids"] == 0).sum() > 1:
            raise MemoryError
        return compute(self, inputs)

    monkeypatch.setattr(loop.NibbleTrainer, "summed_loss", short)
    settings = {"train.micro_batch": 2, "evaluation.prompts": []}
    whole = sixteen_steps(tiny, rows_file, workspace, **settings)
    assert loop.train(whole) == "finished"
    run = sixteen_steps(tiny, rows_file, workspace, **settings)
    _train_in_two_parts(run, workspace)
    assert [(each["step"], each["micro_batch"]) for each in run.plan()["changed"]] == [(3, 1)]
    _is_the_same(run, whole)


def _extra(row: dict[str, Any], step: int) -> bool:
    return row["step"] == step and "loss" not in row


class _KilledAtStep7(PatchedSupervisor):
    lines = """
import os, signal
from core.system.hardware import Device
from core.train.watcher import Watcher
write = Watcher.write_step
def and_die(self, step, logs):
    write(self, step, logs)
    if step == 7: os.kill(os.getpid(), signal.SIGKILL)
Watcher.write_step = and_die
"""


def test_a_worker_that_was_killed_goes_on_where_it_was_saved(tiny, rows_file, workspace, undisturbed, capsys) -> None:
    """With -9, in mid-run; through the command."""
    run = sixteen_steps(tiny, rows_file, workspace, _KilledAtStep7(workspace))
    while run.status().state in OPEN:
        time.sleep(0.02)
    assert run.status().state == "interrupted", run.log_tail()
    capsys.readouterr()
    assert main(["resume", run.id, "--data-dir", str(workspace.path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == "finished" and answer["steps"] == STEPS
    assert answer["resumed_from_step"] == 4
    _is_the_same(run, undisturbed)


def _copy(run: Run, name: str) -> Run:
    return Run(Path(shutil.copytree(run.dir, run.dir.with_name(name))))


def test_a_damaged_checkpoint_is_passed_over_and_named(undisturbed, workspace) -> None:
    run = _copy(undisturbed, "20200101-000000-damaged")
    shutil.rmtree(run.adapter)
    file = run.dir / "checkpoints" / "16" / "optimizer.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with (run.dir / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 17, "lo')
    resume(run, QueueOnly(workspace))
    assert loop.train(run) == "finished"
    assert run.status().resumed_from_step == 12
    said = [each["message"] for each in _lines(run, "events.jsonl") if each["kind"] == "warning"]
    assert said == ["The checkpoint of step 16 is skipped: optimizer.pt has been changed."]
    _is_the_same(run, undisturbed)


def test_a_run_that_ended_between_its_last_step_and_its_adapter_gets_its_adapter(undisturbed, workspace) -> None:
    run = _copy(undisturbed, "20200101-000001-cut-short")
    shutil.rmtree(run.adapter)
    run.write_status(state="failed")
    resume(run, QueueOnly(workspace))
    assert loop.train(run) == "finished"
    _is_the_same(run, undisturbed)


def test_more_steps_at_another_rate_are_taken_and_told(undisturbed, workspace) -> None:
    run = _copy(undisturbed, "20200101-000002-longer")
    resume(run, QueueOnly(workspace), ["train.max_steps=18", "train.learning_rate=0.5"])
    assert loop.train(run) == "finished"
    rows = [row for row in _lines(run, "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 19))
    assert rows[-1]["lr"] == pytest.approx(0.5 / 17), "the schedule is that of eighteen steps, one of them the warm-up"
    said = [each["message"] for each in _lines(run, "events.jsonl") if each["kind"] == "changed"]
    assert said == [
        "From step 17 on, train.max_steps is 18 instead of 16.",
        "From step 17 on, train.learning_rate is 0.5 instead of 0.01.",
    ]
    assert run.recipe().train.max_steps == 18 and run.dataset_file().exists()


def test_a_finished_run_goes_on_for_more_epochs(tiny, rows_file, workspace) -> None:
    """Its first steps are those that the longer run would have had, of the same rows."""
    settings = {"train.max_steps": None, "evaluation.prompts": [], "train.schedule": "constant"}
    run = sixteen_steps(tiny, rows_file, workspace, **settings, **{"train.epochs": 0.5})
    assert loop.train(run) == "finished"
    run.write_status(state="finished")
    with pytest.raises(RunError, match="is finished"):
        resume(run, QueueOnly(workspace))
    done = run.status().step
    resume(run, QueueOnly(workspace), ["train.epochs=1"])
    assert loop.train(run) == "finished"
    longer = sixteen_steps(tiny, rows_file, workspace, **settings, **{"train.epochs": 1})
    assert loop.train(longer) == "finished"
    losses = [[row["loss"] for row in _lines(each, "metrics.jsonl") if "loss" in row] for each in (run, longer)]
    assert done < len(losses[0]) and losses[0] == losses[1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lora.rank=8"], "lora.rank: run .* was trained with 4; with 8 it would be a different run"),
        (["train.max_steps=12"], "has already done 16 steps, more than the 12 requested"),
        (["train.epochs=9"], "train.epochs has no effect, because train.max_steps is 16"),
        ([], "is finished: all of its 16 steps are done. Set more"),
    ],
)
def test_what_cannot_be_resumed_is_refused_and_nothing_is_changed(undisturbed, workspace, overrides, said) -> None:
    before = {path.name: path.read_bytes() for path in undisturbed.dir.glob("*.*") if path.is_file()}
    with pytest.raises(RunError, match=said):
        resume(undisturbed, QueueOnly(workspace), overrides)
    assert {path.name: path.read_bytes() for path in undisturbed.dir.glob("*.*") if path.is_file()} == before


def test_a_recipe_or_dataset_that_changed_since_is_refused(undisturbed, workspace) -> None:
    run = _copy(undisturbed, "20200101-000003-edited")
    text = (run.dir / "recipe.yaml").read_text()
    (run.dir / "recipe.yaml").write_text(text.replace("rank: 4", "rank: 6"))
    with pytest.raises(RunError, match="lora.rank: run .* was trained with 4; with 6 it would"):
        resume(run, QueueOnly(workspace), ["train.max_steps=20"])
    other = run.dataset_file().with_name("rows.jsonl")
    other.write_bytes(run.dataset_file().read_bytes() + b"\n")
    (run.dir / "recipe.yaml").write_text(text.replace(run.dataset()["file"], str(other)))
    with pytest.raises(RunError, match="rows.jsonl, has changed since the run began: its content hash was"):
        resume(run, QueueOnly(workspace), ["train.max_steps=20"])
    with pytest.raises(RecipeError):
        resume(run, QueueOnly(workspace), ["train.max_steps=0"])


def _truncated(folder: Path) -> None:
    file = folder / "random.pt"
    file.write_bytes(file.read_bytes()[:-7])


def _flipped(folder: Path) -> None:
    file = folder / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


DAMAGE = {
    "bytes instead of": _truncated,
    "adapter/adapter_model.safetensors has been changed": _flipped,
    "scheduler.pt is missing": lambda folder: (folder / "scheduler.pt").unlink(),
    "it is incomplete (it has no manifest)": lambda folder: (folder / MANIFEST).unlink(),
    "its manifest cannot be read": lambda folder: (folder / MANIFEST).write_text('{"files": [1'),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_whatever_is_damaged_the_next_one_is_taken(undisturbed, tmp_path, said) -> None:
    folder = Path(shutil.copytree(undisturbed.dir / "checkpoints", tmp_path / "checkpoints"))
    DAMAGE[said](folder / "16")
    newest, passed_over = newest_valid(folder)
    assert newest == folder / "12"
    assert [step for step, _ in passed_over] == ["16"] and said in passed_over[0][1]


def test_files_are_cut_back_to_a_step(tmp_path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0}\n{"step": 3}\ngarbage\n{"step": 4}\n{"step": 2')
    cut_back(file, 3)
    assert file.read_text() == '{"step": 0}\n{"step": 3}\n'
    cut_back(tmp_path / "none.jsonl", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_as_many_as_the_recipe_says_are_kept(undisturbed) -> None:
    assert [path.name for path in valid_checkpoints(undisturbed.dir / "checkpoints")] == ["16", "12", "8"]


@pytest.mark.parametrize(("kind", "fused"), [("cpu", True), ("cuda", False), ("mps", False)])
def test_a_checkpoint_of_an_earlier_version_keeps_the_layers_that_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fused: bool
) -> None:
    """Those fused LoRA layers where they computed in fp32, and wrote nothing about it."""
    monkeypatch.setattr("core.train.resume.device", lambda: Device(kind, kind, 2**34, 2**33))
    way: dict[str, Any] = {"micro_batch": 2, "checkpointing": "full", "heap": "kept"}
    settled = {"way": way, "packed": True, "tokens_at_once": 100}
    start = ResumePoint(tmp_path, 3, {"way": way, "settled": settled})
    assert start.strategy.fused_lora is start.choices().strategy.fused_lora is fused
    way["fused_lora"] = not fused
    assert start.strategy.fused_lora is start.choices().strategy.fused_lora is not fused
