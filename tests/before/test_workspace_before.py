"""A workspace of the version before, opened by this one: runs, recipes, data, votes and adapters are as they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file

from core.recipe import Recipe, make_recipe, with_overrides
from core.runs.store import Run
from tests.before.workspace_07565aa import unpack
from tests.outside.command import Trained, ask

full = pytest.mark.full


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace as the version before left it; nothing here writes to it."""
    return unpack(tmp_path_factory.mktemp("before"))


def _run(workspace: Path, name: str) -> Path:
    """The folder of the run called `name`, Finished or Stopped."""
    (found,) = (workspace / "runs").glob(f"*-{name.lower()}")
    return found


def _rows(workspace: Path) -> Path:
    """The dataset that the workspace kept."""
    (found,) = (workspace / "datasets").glob("*/rows.jsonl")
    return found


def test_its_runs_are_listed_as_they_ended(workspace: Path) -> None:
    listed = ask(workspace, "runs")
    found = [(run["name"], run["state"], run["step"], run["total"]) for run in listed]
    assert found == [("Stopped", "stopped", 10, 20), ("Finished", "finished", 4, 4)]


def test_its_votes_are_read_and_counted(workspace: Path) -> None:
    read = ask(workspace, "arena", "votes")
    assert (read["votes"], read["unreadable"]) == (3, 0)
    assert read["by"] == {"person": 3, "judge": 0, "import": 0}
    counted = ask(workspace, "arena", "elo")
    assert counted["votes"] == 3
    assert len(counted["ratings"]) == 2


def test_its_dataset_is_read_to_the_last_row(workspace: Path) -> None:
    report = ask(workspace, "data", "check", str(_rows(workspace)))
    assert report["rows"] == report["usable"] == 8


def test_its_recipes_are_recipes_still(workspace: Path) -> None:
    """Every setting is known and has the value that it had."""
    for name, steps in (("Finished", 4), ("Stopped", 20)):
        recipe = Run(_run(workspace, name)).recipe()
        assert (recipe.name, recipe.model, recipe.train.max_steps) == (name, "starter", steps)
        assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets) == (2, 4.0, "q_v")


@dataclass(frozen=True)
class Gone:
    """What became of copies of the workspace, each used by one command of this version."""

    resumed: Future[Trained]
    continued: Future[Trained]
    answer: Future[Any]
    exported: Future[Any]


@pytest.fixture(scope="module")
def gone(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gone]:
    """Everything that takes long, two at a time, each in its own copy."""
    folder = tmp_path_factory.mktemp("gone")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(workspace, folder / name))

    def trained(name: str, *words: str) -> Trained:
        answer = ask(copy(name), *words)
        return Trained(Path(answer["dir"]), folder / name, answer)

    finished = _run(workspace, "Finished").name
    further = folder / "further.yaml"
    further.write_text(_further(workspace).to_yaml(), "utf-8")
    question = ("--prompt", "hello", "--greedy", "--max-new-tokens", "8")
    with ThreadPoolExecutor(2) as pool:
        yield Gone(
            pool.submit(trained, "resumed", "resume", _run(workspace, "Stopped").name),
            pool.submit(trained, "continued", "train", str(further)),
            pool.submit(lambda: ask(copy("asked"), "chat", finished, *question)),
            pool.submit(lambda: ask(copy("exported"), "export", finished, "--to", "adapter", "--out", "again")),
        )


def _further(workspace: Path) -> Recipe:
    """The finished run's recipe, to train its adapter further on the dataset that the workspace kept."""
    run = Run(_run(workspace, "Finished"))
    changed = {"name": "Further", "data.path": str(_rows(workspace)), "lora.start_from": f"run:{run.id}"}
    overrides = [f"{key}={value}" for key, value in {**changed, "train.max_steps": 6}.items()]
    return make_recipe(with_overrides(run.recipe().model_dump(), overrides))


@full
def test_the_stopped_run_goes_on_from_its_checkpoint_to_its_end(gone: Gone) -> None:
    run = gone.resumed.result()
    assert run.answer["resumed_from_step"] == 10
    assert (run.answer["state"], run.answer["steps"]) == ("finished", 20)
    assert [step["step"] for step in run.steps] == list(range(1, 21))
    assert run.held_out[20] < run.held_out[0] - 0.5, "it has learned"


@full
def test_the_finished_adapter_is_trained_further(gone: Gone) -> None:
    run = gone.continued.result()
    assert run.answer["state"] == "finished"
    before = Trained(_run(run.workspace, "Finished"), run.workspace, {})
    # The version before computed in bf16, on the CPU that it had.
    assert run.held_out[0] == pytest.approx(before.held_out[4], abs=0.1), "it begins where the adapter ended"
    assert before.held_out[0] - before.held_out[4] > 0.4, "which is far from where the base is"
    assert [step["step"] for step in run.steps] == list(range(1, 7))


@full
def test_the_adapter_answers_as_the_version_before_had_it_answer(gone: Gone, workspace: Path) -> None:
    asked, answered = json.loads((workspace / "state" / "talk.json").read_text("utf-8"))
    assert asked["content"] == "hello"
    assert gone.answer.result()["text"] == answered["content"]


@full
def test_the_adapter_is_exported_with_the_same_weights(gone: Gone, workspace: Path) -> None:
    again = gone.exported.result()
    proof = again["verified"]
    assert proof["equal"] + proof.get("ties", 0) == proof["prompts"] > 0
    folders = (workspace / "exports" / "Finished-adapter", Path(again["dir"]))
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert before.keys() == after.keys()
    assert all(numpy.array_equal(before[name], after[name]) for name in before)
