"""What cards the stand-in machine has and who uses them: one file, mapped by all. machine.h says the same in C."""

import ctypes
import mmap
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "GPU_STANDIN_MACHINE"  # names the file
MOST_CARDS, MOST_PROCESSES = 8, 64
MIB = 2**20

# What the driver tells about single processes: all, how much they use not (Windows, WSL), nobody (a container).
NAMED, USE_UNKNOWN, NOBODY_NAMED = 0, 1, 2

_Int = ctypes.c_int64


class _Card(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 96),
        ("major", _Int),
        ("minor", _Int),
        ("bytes", _Int),
        ("driver_bytes", _Int),
        ("slice_bytes", _Int),
    ]


class _Process(ctypes.Structure):
    _fields_ = [("pid", _Int), ("card", _Int), ("bytes", _Int), ("managed", _Int)]


class _Machine(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char * 32),
        ("cards", _Int),
        ("context_bytes", _Int),
        ("pin_limit", _Int),
        ("naming", _Int),
        ("has_sensors", _Int),
        ("is_unified", _Int),
        ("managed_memory", _Int),
        ("defers", _Int),
        ("poisons", _Int),
        ("card", _Card * MOST_CARDS),
        ("process", _Process * MOST_PROCESSES),
    ]


@dataclass(frozen=True)
class Card:
    """A card: its name as NVML tells it, compute capability, and memory in MiB; `slice_mib` is that of a MIG slice."""

    name: str
    capability: tuple[int, int]
    mib: int
    driver_mib: int = 300
    slice_mib: int = 0


PASCAL = Card("NVIDIA GeForce GTX 1080 Ti", (6, 1), 11264)
TURING = Card("NVIDIA GeForce RTX 2060", (7, 5), 6144)
AMPERE = Card("NVIDIA GeForce RTX 3060", (8, 6), 12288)
ADA = Card("NVIDIA GeForce RTX 4090", (8, 9), 24564)
BLACKWELL = Card("NVIDIA GeForce RTX 5090", (12, 0), 32607)
GENERATIONS = (PASCAL, TURING, AMPERE, ADA, BLACKWELL)


@dataclass(frozen=True)
class Machine:
    """What `describe` writes. `pin_limit` is in bytes, None for no limit; see machine.h for the rest."""

    cards: tuple[Card, ...] = (AMPERE,)
    driver: str = "580.95.05"
    context_mib: int = 450
    pin_limit: int | None = None
    naming: int = NAMED
    has_sensors: bool = True
    is_unified: bool = False
    managed_memory: bool = True
    defers: bool = True
    poisons: bool = True


def map_machine(path: Path) -> _Machine:
    """The file at `path` as a structure: what is written to it, every process sees at once."""
    with path.open("r+b") as file:
        return _Machine.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(_Machine)))


def describe(path: Path, machine: Machine) -> None:
    """Write `machine` to the file at `path`, which is made if need be. Who uses it is kept."""
    if not path.exists():
        path.write_bytes(bytes(ctypes.sizeof(_Machine)))
    mapped = map_machine(path)
    mapped.driver = machine.driver.encode()
    mapped.cards = len(machine.cards)
    mapped.context_bytes = machine.context_mib * MIB
    mapped.pin_limit = -1 if machine.pin_limit is None else machine.pin_limit
    for name in ("naming", "has_sensors", "is_unified", "managed_memory", "defers", "poisons"):
        setattr(mapped, name, int(getattr(machine, name)))
    for index, card in enumerate(machine.cards):
        sizes = (card.mib * MIB, card.driver_mib * MIB, card.slice_mib * MIB)
        mapped.card[index] = _Card(card.name.encode(), *card.capability, *sizes)


def occupy(path: Path, mib: int, card: int = 0, pid: int = 1) -> None:
    """Let another process, which must be alive, use `mib` of `card`."""
    for each in map_machine(path).process:
        if each.pid in (0, pid):
            each.pid, each.card, each.bytes = pid, card, mib * MIB
            return
    raise RuntimeError("the stand-in machine has no room for another process")
