"""What a run held out is what it is asked in the arena: the same split, the same rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from core.arena.held_out import held_out, questions_of
from core.arena.prompts import ArenaPrompt
from core.errors import NibbleError
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.train.rows import prepare_rows
from core.workspace import Workspace, write_json


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def _run(workspace: Workspace, tiny: Path, rows_file: Path) -> Run:
    kept = workspace.datasets / "hash" / rows_file.name
    kept.parent.mkdir()
    shutil.copy(rows_file, kept)
    recipe = make_recipe({"model": str(tiny), "data.path": str(kept), "data.eval_fraction": 0.25})
    file = f"../../datasets/hash/{rows_file.name}"
    return create_run(workspace, recipe, {"file": file, "sha256": "x", "name": rows_file.name})


def test_the_questions_are_those_of_the_rows_that_were_held_out(
    workspace: Workspace, tiny: Path, tokenizer: Any, rows_file: Path
) -> None:
    run = _run(workspace, tiny, rows_file)
    held = prepare_rows(run, run.recipe(), tokenizer).held_out
    numbers = {row.row for row in held[:]}
    questions = questions_of(run)
    assert len(questions) == len(numbers) == 10
    # tests/tiny.py numbers its conversations from 0, and a row is counted from 1.
    assert {int(messages[-1][1].split()[-1]) + 1 for messages in questions} == numbers
    assert {role for messages in questions for role, _ in messages} == {"user"}


def test_they_are_kept_and_none_at_all_is_said(workspace: Workspace, tiny: Path, rows_file: Path) -> None:
    run = _run(workspace, tiny, rows_file)
    kept = workspace.arena / f"held-out-{run.id}.json"
    write_json(kept, [[["system", "Be brief."], ["user", "Hi"]]])
    assert held_out(workspace, run.id) == [ArenaPrompt((("system", "Be brief."), ("user", "Hi")), f"run:{run.id}")]
    write_json(kept, [])
    with pytest.raises(NibbleError, match="has no prompts in its validation split"):
        held_out(workspace, run.id)
