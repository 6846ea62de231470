"""Queues a run that has ended again, to go on from its last checkpoint, or says why it cannot. No torch."""

from typing import Any

from core.basemodel.find import find_model
from core.basemodel.pin import FILE, change_of, read_pin
from core.data.changes import content_hash
from core.errors import ModelError, RunError
from core.recipe import Recipe, make_recipe, recipe_of_run, with_overrides
from core.runs.manifest import newest_valid
from core.runs.store import OPEN, Run
from core.runs.supervisor import Supervisor
from core.system.file_lock import file_lock
from core.workspace import read_json

# What may be asked for anew: how long, how fast, and what it may take. Anything else would make it another run.
MAY_CHANGE = (
    *("train.epochs", "train.max_steps", "train.learning_rate", "budget"),
    *("checkpoint.every_steps", "checkpoint.every_minutes", "checkpoint.keep"),
)


def resume(run: Run, supervisor: Supervisor, overrides: list[str] | None = None) -> Run:
    """Queue `run` to continue from its newest whole checkpoint; it starts at once if the device is free.

    `overrides` are `key=value`, of MAY_CHANGE only. Raises RunError or RecipeError; then nothing has been changed.
    """
    with file_lock(supervisor.workspace.state / "start.lock"):
        _queue(run, overrides)
    supervisor.advance()
    return run


def _queue(run: Run, overrides: list[str] | None) -> None:
    status = run.status()
    if status.state in OPEN:
        raise RunError(f"Run {run.id} has not ended: it is {status.state}.")
    if (run.dir / "accelerate.yaml").exists():
        raise RunError(f"Run {run.id} trains on several machines. Such runs cannot be resumed yet.")
    checkpoint, _ = newest_valid(run.dir / "checkpoints")
    progress = read_json(checkpoint / "progress.json") if checkpoint is not None else None
    if checkpoint is None or not isinstance(progress, dict):
        raise RunError(
            f"Run {run.id} cannot be resumed: it has no complete checkpoint. Start it again from its recipe."
        )
    step = int(checkpoint.name)
    before = recipe_of_run(progress["recipe"])
    asked = make_recipe(with_overrides(run.recipe().model_dump(), overrides))
    changed = changes(before, asked)
    _refuse_other_run(run, changed)
    _refuse_nothing_to_do(run, asked, step, progress["total"], before)
    _refuse_other_data(run)
    _refuse_other_base(run, asked)
    run.write_recipe(asked)
    for key, (old, new) in changed.items():
        run.event("changed", f"From step {step + 1:,} on, {key} is {new} instead of {old}.")
    (run.dir / "control.json").unlink(missing_ok=True)
    run.write_status(state="queued", step=step, resumed_from_step=step, ended=None, pid=None, message="")


def changes(before: Recipe, after: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted key: old and new value."""
    old, new = _flat(before.model_dump()), _flat(after.model_dump())
    return {key: (old[key], new[key]) for key in old if old[key] != new[key]}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _refuse_other_run(run: Run, changed: dict[str, tuple[Any, Any]]) -> None:
    for key, (old, new) in changed.items():
        if key not in MAY_CHANGE:
            raise RunError(
                f"{key}: run {run.id} was trained with {old}; with {new} it would be a different run. Resume it with "
                f"{old}, or start a new run. You can change: {', '.join(MAY_CHANGE)}."
            )
    steps = run.recipe().train.max_steps
    if "train.epochs" in changed and "train.max_steps" not in changed and steps is not None:
        raise RunError(
            f"train.epochs has no effect, because train.max_steps is {steps:,}. Set train.max_steps instead."
        )


def _refuse_nothing_to_do(run: Run, asked: Recipe, step: int, total: int, before: Recipe) -> None:
    """Raise RunError where all steps are done already."""
    epochs, had = asked.train.epochs or 1, before.train.epochs or 1
    steps = asked.train.max_steps or (total if before.train.max_steps else round(total * epochs / had))
    longer = "Set more: --set train.epochs=N or --set train.max_steps=N."
    if steps < step:
        raise RunError(f"Run {run.id} has already done {step:,} steps, more than the {steps:,} requested. {longer}")
    if steps == step and run.status().state == "finished":
        raise RunError(f"Run {run.id} is finished: all of its {step:,} steps are done. {longer}")


def _refuse_other_data(run: Run) -> None:
    recorded, file = run.dataset(), run.dataset_file()
    try:
        now = content_hash(file)
    except OSError as error:
        raise RunError(f"The dataset of run {run.id} cannot be read: {error.strerror or error}.") from None
    if now != recorded["sha256"]:
        raise RunError(
            f"The dataset of run {run.id}, {recorded['name']}, has changed since the run began: its content hash was "
            f"{recorded['sha256'][:12]} and is now {now[:12]}. Restore it, or start a new run."
        )


def _refuse_other_base(run: Run, recipe: Recipe) -> None:
    """Raise RunError where the base has clearly changed; the worker compares the contents of large files."""
    pinned = read_pin(run.dir / FILE)
    if pinned is None:
        return
    try:
        found = find_model(recipe.model)
    except ModelError as error:
        raise RunError(f"The base model of run {run.id} is not where it was. {error}") from None
    change = change_of(found.folder, pinned) if found.folder is not None else None
    if change is not None:
        raise RunError(change.sentence(f"run {run.id}, {found.label},"))
