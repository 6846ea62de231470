"""Nibble's command line, called as launch.py calls it, and the files that a run leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """What launch.py hands over, and no card: the right values here are those of a CPU."""
    here = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **here}


def command(*words: str) -> list[str]:
    """A command of Nibble's, with its answer as JSON."""
    return [sys.executable, "-m", "core.cli", *words, "--json"]


def ask(workspace: Path, *words: str, status: int = 0) -> Any:
    """The answer of a command that ends with `status`."""
    asked = command(*words, "--data-dir", str(workspace))
    told = subprocess.run(asked, env=environment(), capture_output=True, text=True, cwd=workspace, check=False)
    assert told.returncode == status, f"{words}: {told.returncode}\n{told.stdout}\n{told.stderr}"
    return json.loads(told.stdout)


@dataclass(frozen=True)
class Trained:
    """A run's folder, by the files that are documented."""

    dir: Path
    workspace: Path
    answer: dict[str, Any]

    @property
    def id(self) -> str:
        """What commands know the run by."""
        return str(self.answer["run"])

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Those of a .jsonl file."""
        return [json.loads(line) for line in (self.dir / name).read_text("utf-8").splitlines()]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The line of each optimizer step."""
        return [line for line in self.lines("metrics.jsonl") if "loss" in line]

    @property
    def held_out(self) -> dict[int, float]:
        """The evaluation loss by the step after which it was measured."""
        return {line["step"]: line["eval_loss"] for line in self.lines("metrics.jsonl") if "eval_loss" in line}

    @property
    def plan(self) -> dict[str, Any]:
        """What was decided before the first step."""
        found: dict[str, Any] = json.loads((self.dir / "plan.json").read_text("utf-8"))
        return found


def train(workspace: Path, settings: dict[str, Any]) -> Trained:
    """Train a recipe of these dotted settings to its end."""
    workspace.mkdir(parents=True, exist_ok=True)
    answer = ask(workspace, "train", str(write_recipe(workspace, settings)))
    return Trained(Path(answer["dir"]), workspace, answer)


def write_recipe(folder: Path, settings: dict[str, Any]) -> Path:
    """These dotted settings as recipe.yaml in `folder`."""
    recipe: dict[str, Any] = {}
    for key, value in settings.items():
        group, _, name = key.rpartition(".")
        (recipe.setdefault(group, {}) if group else recipe)[name] = value
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), "utf-8")
    return file
