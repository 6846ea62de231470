"""What was measured or tried on this machine's cards, kept with the torch and driver that it holds for.

`doctor` measures (core/memory/measured_overhead.py, core/system/managed_memory.py). Imports no torch.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from core.system.hardware import Device, cuda_driver
from core.workspace import read_json, write_json

FILE = Path(sys.prefix) / "nibble-gpu.json"
# What this process alone remembers.
_here: dict[str, Any] = {}
# Raised when what is measured changes, so that older figures no longer count.
STEP = "3"


def measured(card: Device) -> dict[str, Any]:
    """What is kept of `card`; empty for what is no NVIDIA card, and where its driver or torch is another by now."""
    found = _kept().get(card.name) if card.kind == "cuda" else None
    return found if isinstance(found, dict) and found.get("of") == _made_with() else {}


def keep(card: Device, **found: Any) -> None:
    """Remember `found` of `card`, beside what is kept of it and of others: in this process alone where no file can."""
    of_card = {**measured(card), "of": _made_with(), **found}
    try:
        write_json(FILE, {**_kept(), card.name: of_card})
    except OSError:  # an environment that nobody may write to, as in a container
        _here[card.name] = of_card


def _kept() -> dict[str, Any]:
    kept = read_json(FILE)
    return {**_here, **(kept if isinstance(kept, dict) else {})}


def _made_with() -> dict[str, str]:
    libraries = {name: metadata.version(name) for name in ("torch", "bitsandbytes")}
    return {"driver": cuda_driver(), **libraries, "step": STEP}
