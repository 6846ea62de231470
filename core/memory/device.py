"""The device that a plan is for, this machine's or a card of presets/cards, and what it adds to the tensors.

Tensors are traced to the byte. What comes on top is modelled: the caching allocator's blocks and the process itself.
Constants are measured where a comment says so, else as others document them.
"""

import re
from dataclasses import dataclass

from core.catalogue.facts import Card, cards
from core.memory.budget import CPU_PROCESS_BYTES
from core.memory.measured_overhead import MeasuredOverhead, constants_of, documented
from core.step.fused_gain import FusedGain
from core.system.allocator import heap_can_return
from core.system.hardware import Device, compute_dtype, cpu_cores

MIB = 2**20
# torch's CUDA allocator takes 2 MiB for small tensors and rounds large ones up; what that and fragmentation add to a
# training step's tensors, as published for QLoRA-like runs (a few percent). Not measured by us yet.
CUDA_SLACK = 0.03
CUDA_BLOCK = 20 * MIB
# What glibc's heap keeps beyond the live tensors, as a share of them and a constant: 0.3 to 0.6 were measured on runs
# of the starter with torch 2.13 on Linux. Told to return each tensor's pages, it keeps little.
CPU_SLACK = {"kept": (0.60, 60_000_000), "returned": (0.03, 0)}
# The share of the datasheet's operations a second that a fine-tuning step of one micro-batch reaches.
GPU_EFFICIENCY = 0.45
# A core's fp32 operations a second while it trains, measured with the starter on a Xeon with AVX512.
CPU_CORE_FLOPS = 55e9
CPU_BANDWIDTH = 8e9
GPU_BANDWIDTH = 400e9
GPU_FLOPS = 60e12
MEMORY_IN_TITLE = re.compile(r" \d+ GB$")


@dataclass(frozen=True)
class PlanningDevice:
    """A device to plan for: bytes, speeds a second as far as they are known, and a GPU's constants."""

    kind: str
    name: str
    total_bytes: int
    dtype: str
    flops: float
    bandwidth: float
    is_this_machine: bool
    constants: MeasuredOverhead | None = None
    # What was measured of the fused LoRA layer on this machine's GPU.
    fused_gain: FusedGain | None = None

    @property
    def returns_memory(self) -> bool:
        """Whether a run here can have the allocator return freed tensors to the system."""
        return self.kind == "cpu" and self.is_this_machine and heap_can_return()

    def reserved(self, tensors: int, heap: str = "kept") -> int:
        """What the allocator takes from the system for a peak of `tensors` bytes."""
        if self.kind == "cpu":
            share, always = CPU_SLACK[heap]
            return int(tensors * (1 + share)) + always
        blocks = -(-int(tensors * (1 + CUDA_SLACK)) // (2 * MIB)) * 2 * MIB
        return blocks + CUDA_BLOCK

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
    dtype, _ = compute_dtype(device.kind, capability)
    like = card_like(device, capability) if device.kind == "cuda" and capability else None
    if device.kind == "cpu":
        flops, bandwidth = CPU_CORE_FLOPS * cpu_cores(), CPU_BANDWIDTH
    elif like is not None:
        flops, bandwidth = like.half_flops * GPU_EFFICIENCY, like.memory_bandwidth
    else:
        flops, bandwidth = GPU_FLOPS, GPU_BANDWIDTH
    constants = constants_of(device, capability) if device.kind == "cuda" and capability else None
    return PlanningDevice(device.kind, device.name, device.total_bytes, dtype, flops, bandwidth, True, constants)


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
    flops = card.half_flops * GPU_EFFICIENCY
    constants = documented(card.compute_capability)
    return PlanningDevice(
        "cuda", card.title, card.memory_bytes, card.half_dtype, flops, card.memory_bandwidth, False, constants
    )
