"""What was measured of the fused layer on a GPU is kept by its name, and holds for the versions that it names."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from core.step.fused_gain import keep_gain, read_gain
from core.workspace import Workspace

GPU = "NVIDIA GeForce RTX 3060"


def _file(workspace: Workspace) -> Path:
    return workspace.path / "state" / "fused-lora.json"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_nothing_is_known_of_a_gpu_that_was_not_measured(workspace: Workspace) -> None:
    assert read_gain(workspace, GPU) is None
    keep_gain(workspace, "NVIDIA GeForce RTX 3060 Ti", "bfloat16", 1.2)
    assert read_gain(workspace, GPU) is None


def test_each_gpu_keeps_its_own_figure_with_all_that_it_hangs_on(workspace: Workspace) -> None:
    keep_gain(workspace, GPU, "bfloat16", 1.23456)
    keep_gain(workspace, "Tesla T4", "float16", 0.9)
    kept = json.loads(_file(workspace).read_text(encoding="utf-8"))
    assert kept.keys() == {GPU, "Tesla T4"}
    assert {key: value for key, value in kept[GPU].items() if key != "date"} == {
        "times": 1.235,
        "computing": "bfloat16",
        "torch": metadata.version("torch"),
        "bitsandbytes": metadata.version("bitsandbytes"),
    }
    gain = read_gain(workspace, GPU)
    assert gain is not None and gain.is_gain and gain.holds_for("bfloat16") and not gain.holds_for("float16")
    other = read_gain(workspace, "Tesla T4")
    assert other is not None and not other.is_gain
    keep_gain(workspace, GPU, "bfloat16", 1.01)
    gain = read_gain(workspace, GPU)
    assert gain is not None and gain.times == 1.01 and not gain.is_gain


@pytest.mark.parametrize("library", ["torch", "bitsandbytes"])
def test_another_version_of_a_library_has_to_be_measured_anew(workspace: Workspace, library: str) -> None:
    keep_gain(workspace, GPU, "bfloat16", 1.2)
    kept = json.loads(_file(workspace).read_text(encoding="utf-8"))
    kept[GPU][library] = "0.0.1"
    _file(workspace).write_text(json.dumps(kept), encoding="utf-8")
    gain = read_gain(workspace, GPU)
    assert gain is not None and not gain.holds_for("bfloat16")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '"x"', f'{{"{GPU}": 1.2}}', f'{{"{GPU}": {{"times": 1.2}}}}', f'{{"{GPU}": null}}']
    + [
        json.dumps({GPU: {"times": times, "computing": "bfloat16", "torch": torch, "bitsandbytes": "1", "date": "d"}})
        for times, torch in (("1.2", "1"), (None, "1"), (float("nan"), "1"), (float("inf"), "1"), (True, "1"), (1.2, 1))
    ],
)
def test_a_file_that_says_something_else_says_nothing(workspace: Workspace, content: str) -> None:
    _ = workspace.state
    _file(workspace).write_text(content, encoding="utf-8")
    assert read_gain(workspace, GPU) is None
    keep_gain(workspace, GPU, "bfloat16", 1.2)
    assert read_gain(workspace, GPU) is not None
