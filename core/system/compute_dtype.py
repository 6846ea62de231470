"""The dtype to compute in on a device, and why: by what was measured on it, else by what is documented of it.

Imports no torch.
"""

import os
import re
from collections.abc import Mapping

from core.system.hardware import Device, cpu_flags, cuda_capability
from core.system.measured_card import measured

# The dtype, and the reason for a person.
Dtype = tuple[str, str]

BF16_FROM = (8, 0)
# Native fp16 runs at 1/64 of fp32's rate on 6.1 (CUDA C Programming Guide, "Arithmetic Instructions": 2 results a clock
# and multiprocessor against 128). torch's products add up in fp32 and were reported at fp32's rate there
# (yaroslavvb/tensorflow-community-wheels#44: 12.7 against 12.8 TFLOP/s), other kernels were not.
FP16_IS_SLOW = (6, 1)
# Turing without tensor cores, TU116 and TU117: also 7.5, but fp16 products were measured at 0.5 TFLOP/s on a GTX 1660
# Super (pytorch#121957), and at 1/23 of the memory's speed on a GTX 1650 where fp32 has no such cliff (pytorch#195716).
NO_TENSOR_CORES = re.compile(r"\b(GTX 16\d0|MX ?[45]50|T(4|5|6)00|T550|T1000|T1200|T2000|CMP 30HX)\b", re.IGNORECASE)
# fp16 takes half the memory, so fp32 has to be faster by this much.
CLEARLY_FASTER = 1.25
# Families whose hidden states exceed fp16's largest number, 65,504, by transformers' `model_type`. Gemma 3 gives NaN
# (transformers#36822, #39972). vLLM refuses fp16 for Gemma 2, Gemma 3, GLM-4 and PLaMo 2 (vllm/config/model.py,
# `_FLOAT16_NOT_SUPPORTED_MODELS`) and scales DeepSeek's hidden states down for it (deepseek_v2.py). gpt-oss: 92,580 in
# the last layer (ROCm/hip-ep#168). Not here, since a loss scaler is enough: mixtures whose gradients alone overflow.
OVERFLOWING = frozenset(
    {
        *("gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "glm4", "plamo2", "gpt_oss"),
        *("deepseek_v2", "deepseek_v3"),
    }
)


def compute_dtype(device: Device, model_type: str = "") -> Dtype:
    """The dtype to compute in on `device`, for a model of transformers' `model_type` where one is known."""
    if device.kind == "cuda":
        usual = dtype_of_card(cuda_capability(device.index), device.name, measured(device).get("rates"))
    elif device.kind == "mps":
        usual = "float16", "Apple's GPU is fast in fp16"
    else:
        usual = _on_cpu()
    return without_overflow(usual, model_type)


def dtype_of_card(capability: tuple[int, int], name: str, rates: Mapping[str, float] | None = None) -> Dtype:
    """As `compute_dtype`, for any model on an NVIDIA card. `rates`: its measured operations a second by dtype."""
    version = f"compute capability {capability[0]}.{capability[1]}"
    if capability >= BF16_FROM:
        return "bfloat16", f"{version} supports bf16"
    if rates:
        return _by_rate(rates["float16"], rates["float32"])
    if capability == FP16_IS_SLOW:
        return "float32", f"{version} computes fp16 at 1/64 of the rate of fp32"
    if capability == (7, 5) and NO_TENSOR_CORES.search(name):
        return "float32", f"{version} without tensor cores, as on this card, is far slower in fp16"
    return "float16", f"{version} does not support bf16"


def without_overflow(usual: Dtype, model_type: str) -> Dtype:
    """The `usual` dtype, or fp32 where that is fp16 and the model's numbers exceed it.

    Not bf16, which cards below 8.0 only emulate: torch's memory-efficient attention has no kernel for it there (2.13,
    sdp_utils.cpp, `less_than_sm80_mem_efficient_dtypes`), so that all scores would be kept.
    """
    if usual[0] != "float16" or model_type not in OVERFLOWING:
        return usual
    return "float32", f"numbers of {model_type} models overflow in fp16, which this device would use otherwise"


def _by_rate(half: float, full: float) -> Dtype:
    """fp16 or fp32, by the measured rates of both."""
    rates = f"{half / 1e12:.1f} TFLOP/s in fp16 and {full / 1e12:.1f} in fp32 were measured on this card"
    return ("float32" if full > CLEARLY_FASTER * half else "float16"), rates


def _on_cpu() -> Dtype:
    """On a CPU without AMX, bf16 was measured up to 30 times slower than fp32, adapters included.

    ONEDNN_MAX_CPU_ISA may keep torch off AMX (oneDNN, "CPU Dispatcher Control").
    """
    if "amx_bf16" not in cpu_flags():
        return "float32", "on a CPU without AMX, fp32 is fastest and bf16 can be 30 times slower"
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if allowed in ("", "DEFAULT", "ALL") or "AMX" in allowed:
        return "bfloat16", "this CPU has AMX, which is fast in bf16"
    return "float32", f"this CPU has AMX, but ONEDNN_MAX_CPU_ISA={allowed} prevents torch from using it"
