"""How much device memory the next run will find free: the present holder ends or gives way before it starts."""

from dataclasses import replace

from core.runs.device_lock import holder
from core.system.hardware import Device, ReadingError, device, device_used_bytes
from core.workspace import Workspace


def device_for_a_run(workspace: Workspace) -> Device:
    """The device, counting what its present holder uses as free."""
    chosen, at_it = device(), holder(workspace)
    if at_it is None or at_it.pid is None:
        return chosen
    try:
        theirs = device_used_bytes(chosen, at_it.pid).process or 0
    except ReadingError:
        return chosen
    return replace(chosen, free_bytes=min(chosen.total_bytes, chosen.free_bytes + theirs))
