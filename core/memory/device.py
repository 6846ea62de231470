"""The device that a plan is for, this machine's or a card of presets/cards, and what it adds to the tensors.

Tensors are traced to the byte. What comes on top is modelled: the caching allocator's blocks and the process itself.
Constants are measured where a comment says so, else as others document them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.catalogue.facts import Card, cards
from core.memory.budget import CPU_PROCESS_BYTES
from core.memory.measured_overhead import MeasuredOverhead, constants_of, documented
from core.step.fused_gain import FusedGain
from core.system.allocator import heap_can_return
from core.system.compute_dtype import compute_dtype, dtype_of_card, without_overflow
from core.system.hardware import Device, cpu_cores, free_ram
from core.system.managed_memory import pages_states
from core.system.measured_card import measured
from core.system.process import segments_grow

MIB = 2**20
# torch's CUDA allocator takes 2 MiB for small tensors and rounds large ones up; what that and fragmentation add to a
# training step's tensors, as published for QLoRA-like runs (a few percent), where its segments grow with them. By the
# allocator's rules it is 2.1 to 5.6 % with `CUDA_BLOCK` (`bench allocator`). Not measured by us yet.
CUDA_SLACK = 0.03
# Where they do not grow (core/system/process.py, `segments_grow`), a freed block serves only what fits into it: by the
# rules 4.1 to 8.8 %.
CUDA_SLACK_FIXED = 0.10
CUDA_BLOCK = 20 * MIB
# How much of the free ordinary memory a run may fill. Pinned pages cannot be swapped out.
RAM_SHARE = 0.8
# What glibc's heap keeps beyond the live tensors, as a share of them and a constant: 0.3 to 0.6 were measured on runs
# of the starter with torch 2.13 on Linux. Told to return each tensor's pages, it keeps little.
CPU_SLACK = {"kept": (0.60, 60_000_000), "returned": (0.03, 0)}
# The share of the datasheet's operations a second that a fine-tuning step of one micro-batch reaches.
GPU_EFFICIENCY = 0.45
# The share of the operations a second that torch's own product of two large matrices was measured at: that product
# reaches about 0.8 of the datasheet's. Not measured by us yet.
MEASURED_EFFICIENCY = 0.55
# A core's fp32 operations a second while it trains, measured with the starter on a Xeon with AVX512.
CPU_CORE_FLOPS = 55e9
CPU_BANDWIDTH = 8e9
GPU_BANDWIDTH = 400e9
GPU_FLOPS = {"bfloat16": 60e12, "float16": 60e12, "float32": 10e12}
MEMORY_IN_TITLE = re.compile(r" \d+ GB$")


@dataclass(frozen=True)
class PlanningDevice:
    """A device to plan for: bytes, speeds a second as far as they are known, and a GPU's constants.

    It computes in `dtype`, `because` of that; `flops_in` are the operations a second of a training step by dtype.
    `pages`: whether a GPU has managed memory, where paged optimizers keep their states. `segments_grow`: whether
    torch's allocator can grow its blocks. `free_ram`: free bytes of ordinary memory, None where they are not known.
    `unified`: a GPU without memory of its own.
    """

    kind: str
    name: str
    total_bytes: int
    dtype: str
    because: str
    flops_in: Mapping[str, float]
    bandwidth: float
    is_this_machine: bool
    constants: MeasuredOverhead | None = None
    pages: bool = True
    segments_grow: bool = True
    free_ram: int | None = None
    unified: bool = False
    # What was measured of the fused LoRA layer on this machine's GPU.
    fused_gain: FusedGain | None = None

    @property
    def flops(self) -> float:
        """Operations a second of a training step."""
        return self.flops_in[self.dtype]

    def for_model(self, model_type: str) -> PlanningDevice:
        """The same, computing in fp32 where models of that type overflow in fp16."""
        dtype, because = without_overflow((self.dtype, self.because), model_type)
        return replace(self, dtype=dtype, because=because)

    @property
    def returns_memory(self) -> bool:
        """Whether a run here can have the allocator return freed tensors to the system."""
        return self.kind == "cpu" and self.is_this_machine and heap_can_return()

    def reserved(self, tensors: int, heap: str = "kept") -> int:
        """What the allocator takes from the system for a peak of `tensors` bytes."""
        if self.kind == "cpu":
            share, always = CPU_SLACK[heap]
            return int(tensors * (1 + share)) + always
        slack = CUDA_SLACK if self.segments_grow else CUDA_SLACK_FIXED
        blocks = -(-int(tensors * (1 + slack)) // (2 * MIB)) * 2 * MIB
        return blocks + CUDA_BLOCK

    def has_ram_for(self, moved: int) -> bool:
        """Whether ordinary memory takes `moved` bytes that leave the GPU; of one without memory of its own none do."""
        if self.unified:
            return not moved
        return self.free_ram is None or moved <= RAM_SHARE * self.free_ram

    @property
    def context_bytes(self) -> int:
        """What the process takes before its first tensor."""
        return CPU_PROCESS_BYTES if self.constants is None else self.constants.context_bytes

    @property
    def workspace_bytes(self) -> int:
        """The libraries' workspace, out of the allocator's own pool; it is never freed."""
        return 0 if self.constants is None else self.constants.workspace_bytes


def this_machine(device: Device, capability: tuple[int, int] | None) -> PlanningDevice:
    """The device that a run here would use."""
    if device.kind == "cuda" and capability is not None:
        return _this_card(device, capability)
    dtype, because = compute_dtype(device)
    flops_in, bandwidth = GPU_FLOPS, GPU_BANDWIDTH
    if device.kind == "cpu":
        flops_in, bandwidth = dict.fromkeys(GPU_FLOPS, CPU_CORE_FLOPS * cpu_cores()), CPU_BANDWIDTH
    return PlanningDevice(device.kind, device.name, device.total_bytes, dtype, because, flops_in, bandwidth, True)


def _this_card(device: Device, capability: tuple[int, int]) -> PlanningDevice:
    """This machine's NVIDIA card, with what was measured of it."""
    rates, like = measured(device).get("rates"), card_like(device, capability)
    dtype, because = dtype_of_card(capability, device.name, rates)
    flops_in, bandwidth = GPU_FLOPS, GPU_BANDWIDTH
    if like is not None:
        flops_in, bandwidth = _scaled(like.flops, GPU_EFFICIENCY), like.memory_bandwidth
    if rates:
        flops_in = _scaled(rates, MEASURED_EFFICIENCY)
    constants, pages = constants_of(device, capability), pages_states(device)
    return PlanningDevice(
        "cuda",
        device.name,
        device.total_bytes,
        dtype,
        because,
        flops_in,
        bandwidth,
        True,
        constants,
        pages,
        segments_grow(),
        free_ram(),
        device.unified,
    )


def _scaled(rates: Mapping[str, float], share: float) -> dict[str, float]:
    return {dtype: rate * share for dtype, rate in rates.items()}


def card_like(device: Device, capability: tuple[int, int]) -> Card | None:
    """The card of the catalogue with this NVIDIA card's name, or else the one of its generation nearest in size.

    Only its speeds are used: the driver does not report them. None where no card has this compute capability.
    """
    name = _words(device.name)

    def likeness(card: Card) -> tuple[int, int]:
        words = _words(MEMORY_IN_TITLE.sub("", card.title))
        return len(words) if words <= name else 0, -abs(card.memory_bytes - device.total_bytes)

    return max((each for each in cards().values() if each.compute_capability == capability), key=likeness, default=None)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def of_card(card: Card) -> PlanningDevice:
    """A card of the catalogue."""
    dtype, because = dtype_of_card(card.compute_capability, card.title)
    flops_in, constants = _scaled(card.flops, GPU_EFFICIENCY), documented(card.compute_capability)
    return PlanningDevice(
        "cuda",
        card.title,
        card.memory_bytes,
        dtype,
        because,
        flops_in,
        card.memory_bandwidth,
        False,
        constants,
        segments_grow=segments_grow(),
    )
