"""The sample datasets that Nibble ships."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from core.workspace import PRESETS


@dataclass(frozen=True)
class Sample:
    """One shipped dataset: `title` for a menu, `teaches` in one sentence, `prompts` to watch it learn by."""

    name: str
    path: Path
    format: str
    title: str
    teaches: str
    prompts: tuple[str, ...]


@cache
def samples() -> tuple[Sample, ...]:
    """All shipped datasets, in the order of the menu."""
    folder = PRESETS / "datasets"
    entries = yaml.safe_load((folder / "samples.yaml").read_text(encoding="utf-8"))
    return tuple(
        Sample(path=folder / entry.pop("file"), prompts=tuple(entry.pop("prompts")), **entry) for entry in entries
    )


def find_sample(name: str) -> Sample | None:
    """The sample of that name, or None."""
    return next((sample for sample in samples() if sample.name == name), None)
