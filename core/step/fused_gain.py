"""What `bench train` measured: how many times as fast as PEFT's layer the fused one is on this machine's GPU.

Kept in the workspace, by the GPU's name, with what else it depends on: the libraries' versions and the dtype. Imports
no torch.
"""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from core.workspace import Workspace, read_json, write_json

FILE = "fused-lora.json"
# Rounds of a measurement differ by about one percent; what is within that is no gain.
LEAST = 1.02


@dataclass(frozen=True)
class FusedGain:
    """`times` as fast as PEFT's layer, in the dtype `computing`, with these versions, on this date."""

    times: float
    computing: str
    torch: str
    bitsandbytes: str
    date: str

    @property
    def is_gain(self) -> bool:
        """Whether it is enough to use the fused layer for it."""
        return self.times >= LEAST

    def holds_for(self, computing: str) -> bool:
        """Whether a run that computes in that dtype with the libraries of now would find it so."""
        return (self.computing, self.torch, self.bitsandbytes) == (computing, *_versions())


def keep_gain(workspace: Workspace, gpu: str, computing: str, times: float) -> None:
    """Remember what was measured on the GPU of that name; others' figures stay. Raises OSError."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    gain = FusedGain(round(times, 3), computing, *_versions(), today)
    write_json(workspace.state / FILE, {**_kept(workspace), gpu: asdict(gain)})


def read_gain(workspace: Workspace, gpu: str) -> FusedGain | None:
    """What was measured on the GPU of that name; None where nothing was, or the file was changed by hand."""
    kept = _kept(workspace).get(gpu)
    try:
        gain = FusedGain(**kept)
    except TypeError:  # not a mapping, or with other keys
        return None
    texts = (gain.computing, gain.torch, gain.bitsandbytes, gain.date)
    number = type(gain.times) in (int, float) and math.isfinite(gain.times)
    return gain if number and all(isinstance(each, str) for each in texts) else None


def _kept(workspace: Workspace) -> dict[str, Any]:
    kept = read_json(workspace.state / FILE)
    return kept if isinstance(kept, dict) else {}


def _versions() -> tuple[str, str]:
    return metadata.version("torch"), metadata.version("bitsandbytes")
