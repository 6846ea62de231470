"""Tests on a GPU that is not there: tests/run.py starts a session for them in which torch sees the stand-in."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.workspace import Workspace
from tests.gpu_standin.machine import VARIABLE, Machine, describe, map_machine
from tests.tiny import chat_rows, tiny_model, write_jsonl

pytest.register_assert_rewrite("tests.gpu.checks")  # its messages too show what differed

if VARIABLE in os.environ:  # each process of the session has a machine of its own
    os.environ[VARIABLE] = str(Path(tempfile.mkdtemp(prefix="gpu-standin-machine-")) / "machine")
    describe(Path(os.environ[VARIABLE]), Machine())
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str:
    """Say so where these tests are left out."""
    left_out = "tests/gpu is left out: `python launch.py test tests/gpu` runs it on a stand-in GPU"
    return "" if VARIABLE in os.environ else left_out


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The machine that the test names, `@pytest.mark.machine(Machine(...))`, or one with an RTX 3060. Its mapped file.

    After the test nothing may have been freed while another stream could still use it.
    """
    marker = request.node.get_closest_marker("machine")
    path = Path(os.environ[VARIABLE])
    wanted = marker.args[0] if marker else Machine()
    describe(path, wanted)
    _measured(wanted)
    mapped = map_machine(path)
    for each in mapped.process:
        each.managed = 0  # bitsandbytes never gives it back
        if each.pid != os.getpid():
            each.pid = each.bytes = 0
    yield mapped
    if "torch" in sys.modules:
        _leave_the_card()


def _measured(machine: Machine) -> None:
    """Nothing is measured on these cards but that they page: else each run would try that in a process of its own."""
    from core.system import measured_card
    from core.system.hardware import Device

    measured_card.FILE.unlink(missing_ok=True)
    for card in machine.cards if machine.managed_memory else ():
        measured_card.keep(Device("cuda", card.name, 0, 0), managed_memory=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short conversations."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(40))


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose activations take some MB: four layers with matrices of 256 by 256."""
    return tiny_model(tmp_path_factory.mktemp("models") / "wide", hidden_size=256, num_hidden_layers=4)


@pytest.fixture(scope="session")
def long_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of 150 tokens and more."""
    rows = chat_rows(16)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] = "the quick brown fox jumps over the lazy dog " * (15 + number % 3)
    return write_jsonl(tmp_path_factory.mktemp("data") / "long.jsonl", rows)


@pytest.fixture
def measured() -> Path:
    """The file with what was measured of the machine's cards."""
    return Path(os.environ[VARIABLE] + ".measured.json")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace of the test's own."""
    return Workspace.open(tmp_path / "workspace")


def _leave_the_card() -> None:
    import torch

    from tests.gpu_standin.install import figures

    torch.cuda.synchronize()  # copies that nobody waited for are made, and hold nothing any more
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    ops = sys.modules.get("bitsandbytes.backends.cuda.ops")
    if ops is not None:
        ops._gemm_4bit_use_custom_cuda.cache_clear()  # it goes by the card
    assert figures().freed_in_use == 0, "memory was freed while another stream could still use it"
