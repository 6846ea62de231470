"""What a process takes on a GPU besides the tensors that torch counts: measured once on this card, else documented.

    python -m core.memory.measured_overhead   (measures; `doctor` runs it in a process of its own, for it imports torch)

The figures are kept (core/system/measured_card.py), and beside them how fast the card multiplies matrices. Reading them
imports no torch.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from core.memory.budget import CUDA_CONTEXT_BYTES
from core.system.compute_dtype import BF16_FROM
from core.system.hardware import Device, ReadingError, claim_card, cuda_capability, device, device_used_bytes
from core.system.matrix_rate import matrix_rates
from core.system.measured_card import keep, measured

# What torch gives cuBLAS as a workspace, out of its own pool: 2 x 4 MiB and 8 x 16 KiB, from compute capability 9 on
# 32 MiB (torch 2.13, `parseChosenWorkspaceSize`). Once for each thread, and the backward pass has one of its own.
WORKSPACE_BYTES = 2 * 8_519_680
WORKSPACE_BYTES_HOPPER = 2 * 32 * 2**20
HOPPER = 9
# A context outside this range was not measured alone: another process came or went meanwhile.
LIKELY_CONTEXT = range(100 * 2**20, 2 * 2**30)


@dataclass(frozen=True)
class MeasuredOverhead:
    """Bytes of the CUDA context with its kernels, and of cuBLAS' workspace, which torch counts as tensors."""

    context_bytes: int
    workspace_bytes: int
    measured: bool = False


def documented(capability: tuple[int, int]) -> MeasuredOverhead:
    """The figures where nothing was measured."""
    return MeasuredOverhead(CUDA_CONTEXT_BYTES, WORKSPACE_BYTES_HOPPER if capability[0] >= HOPPER else WORKSPACE_BYTES)


def constants_of(card: Device, capability: tuple[int, int]) -> MeasuredOverhead:
    """The figures of this machine's `card`: measured, if `doctor` ran with the same torch and driver."""
    kept = measured(card)
    if "context_bytes" not in kept:
        return documented(capability)
    return MeasuredOverhead(int(kept["context_bytes"]), int(kept["workspace_bytes"]), measured=True)


def measure(card: Device) -> MeasuredOverhead:
    """Use the card as a training step would, and read what is in use besides what torch has reserved.

    Other processes must not change what they use meanwhile; the smallest of several readings counts. Raises
    ReadingError.
    """
    before = device_used_bytes(card, 0).device
    import torch

    work_as_a_step("cuda")
    torch.cuda.synchronize()
    workspace = torch.cuda.memory_allocated()
    readings = [device_used_bytes(card, 0).device - before - torch.cuda.memory_reserved() for _ in range(5)]
    return MeasuredOverhead(min(readings), workspace, measured=True)


def work_as_a_step(device: str) -> None:
    """Load the kernels that a training step uses, forward and, in a thread of its own, backward."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(torch.randn(256, 256, device=device, dtype=torch.float16), quant_type="nf4")
    heads = torch.randn(1, 4, 64, 64, device=device, dtype=torch.float16, requires_grad=True)
    seen = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    logits = seen.transpose(1, 2).reshape(64, 256) @ dequantize_4bit(packed, state)
    torch.nn.functional.silu(logits).float().logsumexp(1).sum().backward()
    torch.nn.utils.clip_grad_norm_([heads], 1.0)


def rates(card: Device) -> dict[str, float]:
    """Operations a second of this card's matrix products, in each dtype that it may compute in."""
    half = "bfloat16" if cuda_capability(card.index) >= BF16_FROM else "float16"
    return matrix_rates("cuda", (half, "float32"))


def main() -> dict[str, Any]:
    """Measure this machine's card, keep the figures and return them for `doctor`; empty where that is not possible."""
    card = device()
    if card.kind != "cuda":
        return {}
    try:
        found = measure(card)  # first of all: it must be what the process begins with
    except ReadingError:  # the driver tells nobody what a process uses
        found = None
    overhead = asdict(found) if found and found.context_bytes in LIKELY_CONTEXT else {}
    keep(card, **overhead)
    speed = {"rates": rates(card)}  # for which a full card may have no room
    keep(card, **speed)
    return {**overhead, **speed}


if __name__ == "__main__":
    claim_card()
    print(json.dumps(main()))
