"""What is exported: a run's adapter, the base that it belongs to, and how the chat holds that. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.download import DownloadStopped, download
from core.errors import ModelError, RunError
from core.export.naming import base_name, safe_name
from core.export.place import ExportError
from core.models import FoundModel, find_model
from core.recipe import Recipe
from core.runs.store import Run
from core.workspace import read_json


@dataclass(frozen=True)
class Subject:
    """One run's adapter with all that belongs to it. `adapter_config` is what PEFT's adapter_config.json says."""

    run: Run
    recipe: Recipe
    base: FoundModel
    adapter_config: dict[str, Any]

    @property
    def adapter(self) -> Path:
        """The folder with the adapter, its tokenizer and chat template."""
        return self.run.adapter

    @property
    def base_folder(self) -> Path:
        """Where the base's files are."""
        assert self.base.folder is not None  # `find_subject` has seen to it
        return self.base.folder

    @property
    def name(self) -> str:
        """The run's name, as a file name."""
        return safe_name(self.run.name, safe_name(self.run.id))

    @property
    def base_name(self) -> str:
        """What the base is called on other machines."""
        return base_name(self.base)

    @property
    def alpha(self) -> float:
        """The adapter's alpha."""
        return float(self.adapter_config["lora_alpha"])

    @property
    def adapter_bytes(self) -> int:
        """The size of the folder with the adapter."""
        return sum(file.stat().st_size for file in self.adapter.rglob("*") if file.is_file())


def find_subject(run: Run, say: Callable[[str], None] = lambda line: None) -> Subject:
    """The run's adapter and base, downloaded where it is not here. Raises RunError, ModelError, ExportError."""
    recipe = run.recipe()
    if not run.has_adapter:
        raise RunError(f"Run {run.id} has no adapter to export yet: it is {run.status().state}.")
    try:
        base = find_model(recipe.model, run.base_revision())
    except ModelError as error:
        raise ExportError(f"The base of run {run.id} is not where it was. {error}") from None
    if base.folder is None:
        try:
            base = download(base, lambda progress: say(progress.line()), lambda: False)
        except DownloadStopped:
            raise ExportError("The download of the base was stopped.") from None
    config = read_json(run.adapter / "adapter_config.json")
    if not isinstance(config, dict):
        raise ExportError(f"The adapter of run {run.id} is damaged: its adapter_config.json cannot be read.")
    return Subject(run, recipe, base, config)
