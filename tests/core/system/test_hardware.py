"""A card's live readings: what it tells is told, what it does not is none; and which card a process takes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.runs.store import Run
from core.system import hardware
from core.system.hardware import (
    Device,
    ReadingError,
    Used,
    claim_card,
    cuda_devices,
    device_used_bytes,
    temperature_and_power,
)
from core.train import memory_sampler


class NotSupported(Exception):
    """NVML's own."""


def _nvml(**reads: Any) -> SimpleNamespace:
    def refuse(*_: Any) -> None:
        raise NotSupported

    refused = ("nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMigMode")
    calls = {**dict.fromkeys(refused, refuse), **reads}
    named = {"NVMLError": NotSupported, "NVML_TEMPERATURE_GPU": 0, "nvmlDeviceGetHandleByIndex": lambda index: index}
    named |= {"NVMLError_NotSupported": NotSupported}
    return SimpleNamespace(**named, **calls)


@pytest.mark.parametrize(
    ("reads", "celsius", "watts"),
    [
        ({"nvmlDeviceGetTemperature": lambda *_: 67, "nvmlDeviceGetPowerUsage": lambda _: 284_600}, 67.0, 284.6),
        ({"nvmlDeviceGetPowerUsage": lambda _: 284_600}, None, 284.6),
        ({}, None, None),
    ],
)
def test_temperature_and_power_of_a_card(
    monkeypatch: pytest.MonkeyPatch, reads: dict[str, Any], celsius: float | None, watts: float | None
) -> None:
    monkeypatch.setattr(hardware, "nvml_module", lambda: _nvml(**reads))
    told = temperature_and_power(Device("cuda", "Card", 2**34, 2**33))
    assert told == {"temperature_celsius": celsius, "power_watts": watts}


def test_a_cpu_tells_neither() -> None:
    assert temperature_and_power(Device("cpu", "CPU", 2**34, 2**33)) == {}


CARD = Device("cuda", "Card", 2**34, 2**33)


def test_a_card_that_is_gone_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(index: int) -> None:
        raise NotSupported

    nvml = _nvml()
    nvml.nvmlDeviceGetHandleByIndex = gone
    monkeypatch.setattr(hardware, "nvml_module", lambda: nvml)
    assert temperature_and_power(CARD) == {"temperature_celsius": None, "power_watts": None}
    with pytest.raises(ReadingError):
        device_used_bytes(CARD, 1)


def test_what_a_process_uses_may_be_hidden_but_not_what_the_card_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under WSL, which refuses the list, and on Windows, which names processes without their memory."""
    used = {"nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=700)}
    refused = {f"nvmlDeviceGet{which}RunningProcesses": _refused for which in ("Compute", "Graphics")}
    monkeypatch.setattr(hardware, "nvml_module", lambda: _nvml(**used, **refused))
    assert device_used_bytes(CARD, 7) == (None, 700, None)
    for told, mine, nobodys in ((None, None, None), (300, 300, 330)):
        listed = [SimpleNamespace(pid=7, usedGpuMemory=told), SimpleNamespace(pid=8, usedGpuMemory=50)]
        drawing = [SimpleNamespace(pid=8, usedGpuMemory=50), SimpleNamespace(pid=9, usedGpuMemory=20)]
        calls = {**used, "nvmlDeviceGetComputeRunningProcesses": lambda _, listed=listed: listed}
        calls |= {"nvmlDeviceGetGraphicsRunningProcesses": lambda _, drawing=drawing: drawing}
        monkeypatch.setattr(hardware, "nvml_module", lambda calls=calls: _nvml(**calls))
        assert device_used_bytes(CARD, 7) == (mine, 700, nobodys)
    idle = {f"nvmlDeviceGet{which}RunningProcesses": lambda _: [] for which in ("Compute", "Graphics")}
    monkeypatch.setattr(hardware, "nvml_module", lambda: _nvml(**used, **idle))
    assert device_used_bytes(CARD, 7) == (None, 700, 700)  # before this process has come to a card of its own


def _refused(*_: Any) -> None:
    raise NotSupported


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Card 0 with less free than card 1."""
    free = {0: 10 * 2**30, 1: 20 * 2**30}
    nvml = _nvml(
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetUUID=lambda index: f"GPU-{index}",
        nvmlDeviceGetName=lambda index: f"Card {index}",
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(total=24 * 2**30, free=free[index]),
    )
    monkeypatch.setattr(hardware, "nvml_module", lambda: nvml)
    monkeypatch.setattr(hardware, "torch_has_cuda", lambda: True)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("visible", "cards"),
    [(None, [1, 0]), ("0", [0]), ("1,0", [1, 0]), ("GPU-1", [1]), ("", [])],
)
def test_the_cards_are_those_that_may_be_seen(
    two_cards: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, cards: list[int]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card.index for card in cuda_devices()] == cards


@pytest.mark.parametrize(("named", "claimed"), [(None, "1"), ("0,1", "1"), ("0", "0"), ("GPU-0", "GPU-0")])
def test_a_card_is_claimed_by_the_number_that_nvml_gives_it(
    two_cards: None, monkeypatch: pytest.MonkeyPatch, named: str | None, claimed: str
) -> None:
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    claim_card()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == claimed
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_card_that_was_chosen_is_the_one_that_is_claimed(two_cards: None) -> None:
    claim_card(cuda_devices()[1])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_an_order_that_a_person_has_named_stays(two_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    claim_card()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


GIB = 2**30


@pytest.fixture
def sliced(two_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Card 0 whole, 10 GiB free; card 1 sliced in two, with 9 of 10 GiB and 20 of 20 free, and a place left empty.

    The names are of the kinds that `nvidia-smi -L` prints.
    """
    slices = {"first": ("MIG-1111", 10, 9, 3), "second": ("MIG-2222", 20, 20, 1)}
    places = [None, "first", "second"]

    def at(card: int, place: int) -> str:
        if places[place] is None:
            raise NotSupported
        return places[place]

    def memory(handle: Any) -> SimpleNamespace:
        if handle == 1:
            return SimpleNamespace(total=40 * GIB, free=39 * GIB, used=GIB)
        total, free = slices[handle][1:3] if handle in slices else (24, 10)
        return SimpleNamespace(total=total * GIB, free=free * GIB, used=(total - free) * GIB)

    nvml = _nvml(
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetMigMode=lambda card: [int(card == 1), 0],
        nvmlDeviceGetMaxMigDeviceCount=lambda card: len(places),
        nvmlDeviceGetMigDeviceHandleByIndex=at,
        nvmlDeviceGetUUID=lambda handle: slices[handle][0] if handle in slices else f"GPU-{handle}",
        nvmlDeviceGetName=lambda handle: f"Card {handle}",
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetGpuInstanceId=lambda handle: slices[handle][3],
        nvmlDeviceGetComputeInstanceId=lambda handle: 0,
        nvmlDeviceGetTemperature=lambda handle, _: {1: 67}[handle],
        nvmlDeviceGetComputeRunningProcesses=_refused,
        nvmlDeviceGetGraphicsRunningProcesses=_refused,
    )
    monkeypatch.setattr(hardware, "nvml_module", lambda: nvml)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["Card second", "Card 0", "Card first"]),
        ("MIG-1111", ["Card first"]),
        ("MIG-2222,MIG-1111", ["Card second", "Card first"]),
        ("MIG-GPU-1/3/0", ["Card first"]),
        ("1", ["Card second", "Card first"]),
        ("GPU-0", ["Card 0"]),
        ("MIG-3333", []),
    ],
)
def test_a_slice_of_a_card_is_found_by_its_name(
    sliced: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, found: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [card.name for card in cuda_devices()] == found


@pytest.mark.parametrize("visible", [None, "MIG-2222", "1", "MIG-1111,MIG-2222"])
def test_a_slice_is_claimed_by_its_uuid_and_read_by_itself(
    sliced: None, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    claim_card()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-2222"
    chosen = hardware.device()
    assert (chosen.total_bytes, chosen.free_bytes, chosen.index) == (20 * GIB, 20 * GIB, 1)
    assert device_used_bytes(chosen, 7).device == 0, "of the slice, not of the card"
    assert temperature_and_power(chosen)["temperature_celsius"] == 67, "a slice has none of its own"
    assert set(chosen.as_json()) == {"kind", "name", "total_bytes", "free_bytes"}


@pytest.mark.parametrize(
    ("visible", "told"), [("MIG-3333", True), ("7", True), ("", False), ("-1", False), ("0", False)]
)
def test_a_name_that_hides_every_card_is_told(
    sliced: None, monkeypatch: pytest.MonkeyPatch, visible: str, told: bool
) -> None:
    """Of the starter's run too. To hide them on purpose is no mistake."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    said = hardware.hidden_cards()
    assert (said is not None) is told
    assert said is None or f"CUDA_VISIBLE_DEVICES={visible} " in said


@pytest.mark.parametrize(
    ("limit", "current", "free"),
    [("max", 10, 200), (str(16 * 2**30), 10, 16 - 10 + 1), (str(16 * 2**30), 17, 0), (str(400 * 2**30), 10, 200)],
)
def test_free_memory_is_what_a_containers_limit_leaves(
    limit: str, current: int, free: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=200 * 2**30))
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{current * 2**30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {2**30}\nactive_file 7\n")
    assert hardware.free_ram() == free * 2**30


def test_a_card_without_memory_of_its_own_has_the_machines(two_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As GB10, of which NVML tells what a process takes, and nothing of the whole."""
    nvml = hardware.nvml_module()
    machine = SimpleNamespace(total=128 * GIB, available=100 * GIB, used=28 * GIB)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(nvml, "nvmlDeviceGetMemoryInfo", _refused)
    monkeypatch.setattr(nvml, "nvmlDeviceGetGraphicsRunningProcesses", lambda _: [], raising=False)
    mine = [SimpleNamespace(pid=7, usedGpuMemory=5 * GIB)]
    monkeypatch.setattr(nvml, "nvmlDeviceGetComputeRunningProcesses", lambda _: mine, raising=False)
    card = cuda_devices()[0]
    assert card.unified and (card.total_bytes, card.free_bytes) == (128 * GIB, 100 * GIB)
    assert device_used_bytes(card, 7) == Used(5 * GIB, 28 * GIB, None)


@pytest.mark.parametrize(("told", "peak"), [(None, 900), (250, 250)])
def test_a_hidden_process_uses_what_came_on_top_since_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int | None, peak: int
) -> None:
    """A desktop's own windows are not counted to the run."""
    used = iter([1000, 1700, 1900, 1200])
    monkeypatch.setattr(memory_sampler, "device_used_bytes", lambda card, pid: Used(told, next(used)))
    monkeypatch.setattr(memory_sampler, "temperature_and_power", lambda card: {})
    taken = memory_sampler.MemorySampler(Run(tmp_path), CARD, 7)
    for _ in range(4):
        taken._sample()
    assert taken.peak_process_bytes == peak


def test_managed_memory_is_counted_to_the_run_and_what_others_do_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML counts it to no process. Another program that takes 300 meanwhile changes nothing."""
    used = iter([Used(None, 1000, 200), Used(500, 1500, 200), Used(500, 1900, 600), Used(500, 2200, 600)])
    monkeypatch.setattr(memory_sampler, "device_used_bytes", lambda card, pid: next(used))
    monkeypatch.setattr(memory_sampler, "temperature_and_power", lambda card: {})
    taken = memory_sampler.MemorySampler(Run(tmp_path), CARD, 7)
    for _ in range(4):
        taken._sample()
    assert taken.peak_process_bytes == 900
