"""Makes a new run's folder, completely or not at all."""

import re
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import RunError
from core.recipe import Recipe
from core.runs.store import Run, recipe_text
from core.system.full_disk import free_some, is_disk_full
from core.workspace import Workspace, move, write_json

_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


def create_run(
    workspace: Workspace,
    recipe: Recipe,
    dataset: dict[str, Any],
    state: str = "queued",
    fill: Callable[[Path], None] | None = None,
) -> Run:
    """A new run's folder, in `state`: whole or not there. `dataset` says where its copy is kept and its hash.

    `fill` adds other files before the folder becomes visible.
    Raises RunError where the disk is full.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    label = recipe.name or f"{Path(recipe.model).name} on {Path(recipe.data.path).stem}"
    slug = _NOT_IN_NAMES.sub("-", label.lower()).strip("-")[:40] or "run"
    folder = workspace.runs / f"{stamp}-{secrets.token_hex(2)}-{slug}"
    beside = folder.with_name(f".new-{folder.name}")
    try:
        (beside / "checkpoints").mkdir(parents=True)
        (beside / "recipe.yaml").write_text(recipe_text(recipe, dataset), encoding="utf-8")
        write_json(beside / "labels.json", {"name": label, "note": "", "tags": []})
        if fill is not None:
            fill(beside)
        Run(beside).write_status(state=state, step=0, total=0)
        move(beside, folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not is_disk_full(error):
            raise
        raise RunError(f"The disk is full: the run could not be created. {free_some(workspace.path)}") from None
    return Run(folder)
