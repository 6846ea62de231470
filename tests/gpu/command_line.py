"""Nibble's commands on the test's machine, as a person calls them, each in processes of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from core.workspace import ROOT


def environment(**variables: str) -> dict[str, str]:
    """What `python launch.py` hands over, and the card."""
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "2", **variables}


def command(*words: str) -> list[str]:
    """`python launch.py` with these words."""
    return [sys.executable, "-m", "core.cli", *words]


def call(workspace: Path, *words: str, status: int = 0, **variables: str) -> tuple[Any, str]:
    """The answer of a command that ends with `status`, read as JSON, and what it told a person."""
    asked = command(*words, "--json", "--data-dir", str(workspace))
    done = subprocess.run(asked, env=environment(**variables), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout), done.stderr
