"""The compute dtype: by measured rates where there are some, else by what is known of the card, and by the model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from core.system import compute_dtype as chosen_by
from core.system import hardware, measured_card
from core.system.compute_dtype import compute_dtype, dtype_of_card
from core.system.hardware import Device
from core.system.measured_card import keep


@pytest.mark.parametrize(
    ("capability", "name", "expected"),
    [
        ((6, 0), "Tesla P100-PCIE-16GB", "float16"),
        ((6, 1), "NVIDIA GeForce GTX 1080 Ti", "float32"),
        ((6, 1), "Tesla P40", "float32"),
        ((7, 0), "Tesla V100-SXM2-16GB", "float16"),
        ((7, 5), "Tesla T4", "float16"),
        ((7, 5), "NVIDIA GeForce RTX 2060", "float16"),
        ((7, 5), "Quadro RTX 4000", "float16"),
        ((7, 5), "NVIDIA TITAN RTX", "float16"),
        ((7, 5), "NVIDIA GeForce GTX 1660 SUPER", "float32"),
        ((7, 5), "NVIDIA GeForce GTX 1650 Ti", "float32"),
        ((7, 5), "NVIDIA GeForce GTX 1630", "float32"),
        ((7, 5), "NVIDIA GeForce MX450", "float32"),
        ((7, 5), "NVIDIA T1000 8GB", "float32"),
        ((7, 5), "Quadro T2000", "float32"),
        ((7, 5), "NVIDIA T600 Laptop GPU", "float32"),
        ((8, 0), "NVIDIA A100-SXM4-40GB", "bfloat16"),
        ((12, 0), "NVIDIA GeForce RTX 5090", "bfloat16"),
    ],
)
def test_without_a_measurement_the_card_decides(capability: tuple[int, int], name: str, expected: str) -> None:
    dtype, because = dtype_of_card(capability, name)
    assert dtype == expected
    assert f"compute capability {capability[0]}.{capability[1]}" in because


@pytest.mark.parametrize(
    ("half", "full", "expected"),
    [(50e12, 8e12, "float16"), (8e12, 8e12, "float16"), (7e12, 8e12, "float16"), (0.5e12, 4.5e12, "float32")],
)
@pytest.mark.parametrize(
    "card", [((6, 1), "NVIDIA GeForce GTX 1080 Ti"), ((7, 5), "NVIDIA GeForce GTX 1660 SUPER"), ((7, 5), "Tesla T4")]
)
def test_measured_rates_decide_whatever_is_known_of_the_card(
    card: tuple[tuple[int, int], str], half: float, full: float, expected: str
) -> None:
    dtype, because = dtype_of_card(*card, {"float16": half, "float32": full})
    assert dtype == expected
    assert f"{half / 1e12:.1f} TFLOP/s in fp16 and {full / 1e12:.1f} in fp32" in because


def test_a_card_with_bf16_computes_in_it_however_fast_fp32_was_measured() -> None:
    assert dtype_of_card((8, 6), "NVIDIA GeForce RTX 3060", {"bfloat16": 1e12, "float32": 9e12})[0] == "bfloat16"


@pytest.fixture
def card_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A function that puts an NVIDIA card of a name and compute capability into this machine."""
    monkeypatch.setattr(measured_card, "FILE", tmp_path / "nibble-gpu.json")

    def put(name: str, capability: tuple[int, int]) -> Device:
        nvml = SimpleNamespace(
            nvmlDeviceGetHandleByIndex=lambda index: index,
            nvmlDeviceGetCudaComputeCapability=lambda handle: capability,
            nvmlSystemGetDriverVersion=lambda: "580.95.05",
        )
        monkeypatch.setattr(hardware, "nvml_module", lambda: nvml)
        return Device("cuda", name, 2**33, 2**33)

    return put


def test_what_was_measured_on_this_card_counts(card_of) -> None:
    card = card_of("NVIDIA GeForce GTX 1080 Ti", (6, 1))
    assert compute_dtype(card)[0] == "float32"
    keep(card, rates={"float16": 11e12, "float32": 11.2e12})
    assert compute_dtype(card)[0] == "float16"


@pytest.mark.parametrize(
    ("capability", "model_type", "expected"),
    [
        ((7, 5), "gemma3_text", "float32"),
        ((7, 5), "gemma2", "float32"),
        ((7, 5), "gpt_oss", "float32"),
        ((7, 5), "llama", "float16"),
        ((7, 5), "gemma", "float16"),
        ((7, 5), "", "float16"),
        ((8, 9), "gemma3_text", "bfloat16"),
    ],
)
def test_a_model_that_overflows_in_fp16_is_computed_in_fp32(
    card_of, capability: tuple[int, int], model_type: str, expected: str
) -> None:
    dtype, because = compute_dtype(card_of("Tesla T4", capability), model_type)
    assert dtype == expected
    assert ("overflow in fp16" in because) == (expected == "float32")


def test_on_apples_gpu_as_well() -> None:
    apple = Device("mps", "Apple arm64", 2**34, 2**33)
    assert compute_dtype(apple)[0] == "float16"
    assert compute_dtype(apple, "gemma3")[0] == "float32"


@pytest.mark.parametrize(
    ("flags", "allowed", "expected"),
    [
        ({"avx2"}, None, "float32"),
        ({"avx2", "amx_bf16"}, None, "bfloat16"),
        ({"avx2", "amx_bf16"}, "AVX512_CORE_AMX", "bfloat16"),
        ({"avx2", "amx_bf16"}, "all", "bfloat16"),
        ({"avx2", "amx_bf16"}, "AVX512_CORE", "float32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_torch_may_use_its_amx(
    flags: set[str], allowed: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen_by, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    if allowed:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert compute_dtype(Device("cpu", "CPU", 2**34, 2**33))[0] == expected
