"""Live readings of a card: what it tells is told, what it does not is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core import hardware
from core.hardware import Device, temperature_and_power


class NotSupported(Exception):
    """NVML's own."""


def _nvml(**reads: Any) -> SimpleNamespace:
    def refuse(*_: Any) -> None:
        raise NotSupported

    calls = {"nvmlDeviceGetTemperature": refuse, "nvmlDeviceGetPowerUsage": refuse, **reads}
    named = {"NVMLError": NotSupported, "NVML_TEMPERATURE_GPU": 0, "nvmlDeviceGetHandleByIndex": lambda index: index}
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
    monkeypatch.setattr(hardware, "_nvml", lambda: _nvml(**reads))
    told = temperature_and_power(Device("cuda", "Card", 2**34, 2**33))
    assert told == {"temperature_celsius": celsius, "power_watts": watts}


def test_a_cpu_tells_neither() -> None:
    assert temperature_and_power(Device("cpu", "CPU", 2**34, 2**33)) == {}
