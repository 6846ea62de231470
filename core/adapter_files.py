"""An adapter's files, before PEFT opens them: its settings within bounds, its weights safetensors and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.strange_files import read_settings, refuse_adapter_settings

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def refuse_adapter_files(folder: Path) -> dict[str, Any]:
    """The settings of the adapter in `folder`. Raises ModelError where it is none, or is not safe to load.

    PEFT opens pickles where there is no safetensors file, and asks the Hub where there is no file at all.
    """
    missing = next((name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()), None)
    if missing is not None:
        raise ModelError(f"{folder.name} is no adapter that can be loaded: there is no {missing} in it.")
    config = read_settings(folder / CONFIG)
    refuse_adapter_settings(config, folder.name)
    return config
