"""`bench gpu` runs whole on a card: every part measures something. Its figures say nothing here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench._gpu_parts import PARTS
from core.system.process import child_environment
from core.workspace import ROOT
from tests.gpu_standin.machine import Card, Machine

# So small that a tiny model runs out of a hundredth of it, which is the least that a run is held to.
SMALL = Machine(cards=(Card("NVIDIA GeForce RTX 3060", (8, 6), 2048),))
# Parts that cannot be measured yet, and what they say.
LEFT_OUT = {"streaming": "streaming: Nibble cannot stream layers yet."}


@pytest.mark.full
@pytest.mark.machine(SMALL)
def test_every_part_measures_something(tmp_path: Path) -> None:
    docs, out = ROOT / "docs" / "benchmarks.md", tmp_path / "figures" / "bench-gpu.json"
    before = docs.read_bytes()
    command = [sys.executable, "-m", "core.cli", "bench", "gpu", "--tiny", "--json", "--out", str(out)]
    command += ["--minutes", "60"]  # on a busy machine; an idle one needs five
    command += ["--data-dir", str(tmp_path / "workspace")]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True)
    rows = json.loads(done.stdout)
    names = [row["name"] for row in rows]
    assert [name for name in names if "failed" in name] == [], done.stderr[-4000:]
    assert done.returncode == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["rows"] == rows
    assert [note for note in written["notes"] if note.startswith("Left out")] == [
        f"Left out: {sentence}" for sentence in LEFT_OUT.values()
    ]
    measured = next(row for row in rows if row["name"] == "parts with figures")
    assert (measured["value"], measured["reference"]) == (len(PARTS) - len(LEFT_OUT), len(PARTS))
    assert all(name in out.with_suffix(".md").read_text(encoding="utf-8") for name in names)
    assert docs.read_bytes() == before
    assert _value(rows, "running out of memory, llama-3.2-1b: steps down") >= 1
    assert _value(rows, "activation offload, llama-3.1-8b: gradients apart") < 3


def _value(rows: list[dict[str, float]], name: str) -> float:
    return next(row["value"] for row in rows if str(row["name"]).startswith(name))
