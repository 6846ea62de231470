"""The doctor's notes: what is unlike what a person may expect, and no problem; and why its engine is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.system import html as system_html
from core.setup.wheels import Gpu
from core.system import doctor as doctors
from core.system import hardware
from core.system.doctor import doctor
from core.system.hardware import Device
from core.workspace import Workspace

ENGINE = {
    "torch": {"version": "2.13.0+cpu", "cuda": None, "available": False},
    "bitsandbytes": {"version": "0.50.2", "nf4_works": True},
}
CPU = Device("cpu", "CPU · 2 cores", 2**34, 2**33)
CARD = Device("cuda", "GRID T4-8Q", 2**33, 2**33)
EXITED = "Error no kernel image is available for execution on the device at line 84 in file /src/csrc/ops.cu\n"


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that examines a machine with these cards and this torch, whose engine says what `engine` is."""

    def examine(
        device: Device = CPU,
        others: tuple[Gpu, ...] = (),
        build: str = "cpu",
        pages: bool | None = None,
        errors: str = "",
    ) -> dict[str, Any]:
        answer = {} if errors else {**ENGINE, "problems": []}
        answers = {"core.system.doctor": (answer, errors), "core.memory.measured_overhead": ({"context_bytes": 7}, "")}
        monkeypatch.setattr(doctors, "_answer_of", answers.__getitem__)
        monkeypatch.setattr(doctors, "device", lambda: device)
        monkeypatch.setattr(doctors, "compute_dtype", lambda *_: ("float16", "it is a test"))
        monkeypatch.setattr(doctors, "find_others", lambda: list(others))
        monkeypatch.setattr(doctors, "torch_built_for", lambda: build)
        monkeypatch.setattr(doctors, "try_managed_memory", lambda card: pages)
        return doctor(Workspace.open(tmp_path))

    return examine


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({}, []),
        ({"others": (Gpu("amd", "gfx1100"),)}, ["AMD gfx1100 is not used. Nibble uses NVIDIA cards only, because"]),
        ({"others": (Gpu("intel", "Intel 0xe20b"),)}, ["Intel 0xe20b is not used. Nibble uses NVIDIA cards only"]),
        ({"device": CARD, "others": (Gpu("amd", "gfx1036"),), "pages": True}, []),  # a Ryzen's own beside a card
        ({"build": "hip"}, ["The installed torch is built for AMD's ROCm. Nibble uses NVIDIA cards only"]),
        ({"build": "xpu"}, ["The installed torch is built for Intel's XPU. Nibble uses NVIDIA cards only"]),
        ({"device": CARD, "pages": False}, ["no managed memory"]),
        ({"device": CARD, "pages": None}, []),
    ],
)
def test_what_is_not_used_is_said_and_is_no_problem(examined: Any, machine: dict[str, Any], said: list[str]) -> None:
    found = examined(**machine)
    assert len(found["notes"]) == len(said) and found["problems"] == []
    assert all(part in note for part, note in zip(said, found["notes"], strict=True))
    shown = system_html.findings(found)
    assert shown.count("<b>Note</b>") == len(said)


def test_what_was_measured_of_the_card_is_in_the_answer(examined: Any) -> None:
    assert examined(CARD, pages=True)["constants"] == {"context_bytes": 7, "managed_memory": True}
    assert examined(CPU)["constants"] == {}


def test_an_engine_that_bitsandbytes_ended_is_not_said_to_lack_an_import(examined: Any) -> None:
    (problem,) = examined(CARD, pages=True, errors=EXITED)["problems"]
    assert problem["what"] == (
        "bitsandbytes cannot use this card: no kernel image is available for execution on the device."
    )
    (problem,) = examined(errors="ModuleNotFoundError: No module named 'torch'")["problems"]
    assert "cannot be imported: ModuleNotFoundError: No module named 'torch'" in problem["what"]


@pytest.mark.parametrize(
    ("line", "build"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = None", "cpu"),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None", "cuda"),
        ("cuda = '12.6'", "cuda"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '7.2.53211'\nrocm: Optional[str] = '7.2.4'", "hip"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = '20250301'", "xpu"),
    ],
)
def test_a_torch_says_in_its_files_what_it_is_built_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, line: str, build: str
) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: spec)
    assert hardware.torch_built_for.__wrapped__() == build
