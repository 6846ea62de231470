"""Gives this process the stand-in GPU: loads its library right before torch, and changes torch.cuda right after."""

import ctypes
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.gpu_standin.machine import VARIABLE, _Card, map_machine

SITE = Path(__file__).with_name("site")


class Figures(ctypes.Structure):
    """What the stand-in has counted in this process: bytes, or how many. standin.cpp has the same."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("allocated", "peak", "reserved", "peak_reserved", "total", "free", "out_of_memory", "allocations"),
            *("pinned", "peak_pinned", "copies_put_off", "freed_in_use", "by_math", "by_flash", "by_efficient"),
        )
    ]


_loaded: list[Any] = []
# Operations a second of products in 16 bits and in fp32, by compute capability: what NVIDIA tells of the cards in
# machine.py, and of Pascal what torch's products in fp16 were measured at (core/system/compute_dtype.py).
RATES = {(6, 1): (11e12, 11e12), (7, 5): (52e12, 6.5e12), (8, 6): (51e12, 12.7e12), (8, 9): (165e12, 82e12)}


def library() -> Any:
    """The compiled stand-in. Raises RuntimeError where torch was not imported under it."""
    if not _loaded:
        raise RuntimeError("this process has no stand-in GPU")
    return _loaded[0]


def figures() -> Figures:
    """What was counted in this process until now."""
    found = Figures()
    library().standin_figures(ctypes.byref(found))
    return found


def machine() -> Any:
    """The machine's file, mapped."""
    return map_machine(Path(os.environ[VARIABLE]))


def visible_cards() -> list[_Card]:
    """The cards that CUDA_VISIBLE_DEVICES leaves this process."""
    numbers = (ctypes.c_int64 * 8)()
    count = library().standin_visible_cards(numbers)
    return [machine().card[number] for number in numbers[:count]]


def when_torch_is_imported() -> None:
    """Set all this up for the moment at which somebody imports torch. Call it before."""
    assert "torch" not in sys.modules, "the stand-in GPU has to come before torch"
    sys.meta_path.insert(0, _Finder())


def _load() -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    folder = Path(spec.origin or "").parent / "lib"
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(folder / name))
    loaded = ctypes.CDLL(str(Path(os.environ["GPU_STANDIN_BUILT"]) / "libstandin.so"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for function, takes, gives in (
        ("standin_set_fraction", [ctypes.c_double], None),
        ("standin_managed_memory", [ctypes.c_size_t], pointer),
        ("standin_seed", [ctypes.c_uint64], None),
        ("standin_new_stream", [], number),
        ("standin_set_stream", [number], None),
        ("standin_current_stream", [], number),
        ("standin_record_event", [number], pointer),
        ("standin_forget_event", [pointer], None),
        ("standin_stream_waits", [number, pointer], None),
        ("standin_host_waits", [pointer], None),
    ):
        getattr(loaded, function).argtypes, getattr(loaded, function).restype = takes, gives
    _loaded.append(loaded)


def _change_torch(torch: ModuleType) -> None:
    from tests.gpu_standin import bitsandbytes_library, kernels, torch_cuda

    torch_cuda.install(torch)
    kernels.install(torch)
    bitsandbytes_library.install()


def _change_hardware(hardware: Any) -> None:
    hardware.torch_has_cuda = lambda: True  # it reads torch's files


def _change_measured_card(measured_card: Any) -> None:
    measured_card.FILE = Path(os.environ[VARIABLE] + ".measured.json")  # and not what was measured on a real card


def _change_matrix_rate(matrix_rate: Any) -> None:
    """The stand-in knows no speeds: each product is done once and said to be as fast as the card's datasheet has it."""
    multiply = matrix_rate._seconds

    def seconds(device: str, dtype: str, size: int) -> float:
        multiply(device, dtype, 64)
        card = visible_cards()[0]
        half, full = RATES.get((int(card.major), int(card.minor)), (60e12, 12e12))
        return float(2 * size**3 / (full if dtype == "float32" else half))

    matrix_rate._seconds = seconds


def _change_process(process: Any) -> None:
    given = process.child_environment

    def child_environment() -> dict[str, str]:
        """Ours too see the card: site/ comes before Nibble's own folder."""
        environment: dict[str, str] = given()
        environment["PYTHONPATH"] = os.pathsep.join((str(SITE), environment["PYTHONPATH"]))
        return environment

    process.child_environment = child_environment


# What is to be done after these modules have been imported.
AFTER: dict[str, Callable[[Any], None]] = {
    "torch": _change_torch,
    "core.system.hardware": _change_hardware,
    "core.system.matrix_rate": _change_matrix_rate,
    "core.system.process": _change_process,
    "core.system.measured_card": _change_measured_card,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of AFTER where they are, and changes them once they have been imported."""

    def __init__(self) -> None:
        self.looking: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in AFTER or name in self.looking:
            return None
        self.looking.add(name)  # what follows asks this finder again
        spec = importlib.util.find_spec(name)
        self.looking.discard(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if name == "torch":
                _load()
            execute(module)
            AFTER[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
