"""Checks that a base fits into memory before it is loaded; an error says what to do. Imports no torch."""

from core.basemodel.find import FoundModel
from core.errors import ModelError
from core.memory.budget import context_to_come, weight_bytes
from core.recipe import QuantizationSettings
from core.runs.queue import at_work
from core.runs.store import Run
from core.sizes import show_size
from core.system.hardware import Device
from core.workspace import Workspace


def refuse_without_room(
    found: FoundModel, settings: QuantizationSettings, compute_bytes: int, device: Device, workspace: Workspace
) -> None:
    """Raise ModelError where `device` has too little free for the base and for what an active run will still take."""
    needed = weight_bytes(found, settings, compute_bytes) + context_to_come(device)
    run = at_work(workspace)
    predicted = ((run.plan().get("peak_bytes") or {}).get("process") or 0) if run else 0
    still_to_come = max(0, int(predicted) - (device.total_bytes - device.free_bytes)) if run else 0
    free = max(0, device.free_bytes - still_to_come)
    if needed > free:
        raise no_room(found.label, free, run, f"needs about {show_size(needed)}")


def no_room(
    label: str, free_bytes: int, run: Run | None, what: str = "needs more memory than this device has"
) -> ModelError:
    """The error: what it takes, what is free, and what to do. `run` is the one that trains meanwhile."""
    beside = f" next to the run “{run.name}”, which is training" if run else ""
    do = "Wait for it to finish, stop it" if run else "Close other programs that use memory"
    return ModelError(
        f"{label} {what}, and {show_size(free_bytes)} is free on this device{beside}. {do}, or choose a smaller model."
    )
