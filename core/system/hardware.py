"""What this machine has, and live readings of its memory. Imports no torch."""

import contextlib
import importlib.util
import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

# Tokens at once that keep a device busy; more gains little and takes memory. By `Device.kind`.
BUSY_TOKENS = {"cpu": 4096, "mps": 4096, "cuda": 8192}


@dataclass(frozen=True)
class Device:
    """A device to train on. Sizes in bytes; `kind` is 'cuda', 'mps' or 'cpu'.

    `mig` is the UUID of a slice of the card `index` (NVIDIA's Multi-Instance GPU). `unified`: a card without memory of
    its own, that uses the machine's (GB10).
    """

    kind: str
    name: str
    total_bytes: int
    free_bytes: int
    index: int = 0
    mig: str = ""
    unified: bool = False

    def as_json(self) -> dict[str, Any]:
        """The fields that `doctor` prints."""
        shown = ("kind", "name", "total_bytes", "free_bytes")
        return {key: value for key, value in asdict(self).items() if key in shown}


@cache
def nvml_module() -> Any:
    """The NVML module, initialised once; None on a machine without an NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def cuda_devices() -> list[Device]:
    """The NVIDIA cards that this process may use and the installed torch can use, freest first, read through NVML.

    Of a card that is sliced (MIG) its slices, since a process can use only one of them.
    """
    nvml = nvml_module()
    if nvml is None or not torch_has_cuda():
        return []
    named = _named_devices()
    found = [each for index in range(nvml.nvmlDeviceGetCount()) for each in _at(nvml, index)]
    cards = [card for card, names in found if named is None or any(_is_meant(name, names) for name in named)]
    return sorted(cards, key=lambda card: -card.free_bytes)


# The container's own limits and counts, where it is in one (cgroup v2).
CGROUP = Path("/sys/fs/cgroup")
# What to do where `hidden_cards` has something to say.
NAME_ONE = "Name a card or MIG slice in CUDA_VISIBLE_DEVICES as nvidia-smi -L lists it, or unset that variable."


def hidden_cards() -> str | None:
    """A sentence where CUDA_VISIBLE_DEVICES names something, but none of the cards that torch could use; else None.

    Empty, "-1" and the like are how a person asks for the CPU (CUDA C Programming Guide, "CUDA Environment Variables").
    """
    nvml, named = nvml_module(), _named_devices()
    if nvml is None or not torch_has_cuda() or not nvml.nvmlDeviceGetCount() or cuda_devices():
        return None
    if not named or named[0].startswith("-"):
        return None
    return f"CUDA_VISIBLE_DEVICES={','.join(named)} names none of this machine's NVIDIA cards, so the CPU is used."


def unused_card() -> str | None:
    """The name of an NVIDIA card that is there but that the installed torch cannot use; None where there is none."""
    nvml = nvml_module()
    if nvml is None or torch_has_cuda() or not nvml.nvmlDeviceGetCount():
        return None
    return str(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)))


def torch_has_cuda() -> bool:
    """Whether the installed torch is built for CUDA."""
    return torch_built_for() == "cuda"


@cache
def torch_built_for() -> str:
    """What the installed torch is built for: 'cuda', 'hip' (AMD), 'xpu' (Intel) or 'cpu'.

    Read from its files, for importing it takes seconds.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "cpu"
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    built = re.findall(r"^(cuda|hip|xpu)\b[^=]*=\s*['\"]", version, re.MULTILINE)
    return built[0] if built else "cpu"


def _named_devices() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES lists; None where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else [name.strip() for name in visible.split(",") if name.strip()]


def _is_meant(name: str, names: Sequence[str]) -> bool:
    """Whether `name` in CUDA_VISIBLE_DEVICES means what has these `names`: by its number, or by how a UUID begins."""
    return any(name == own if own.isdigit() else own.startswith(name) for own in names)


def _at(nvml: Any, index: int) -> list[tuple[Device, list[str]]]:
    """The card `index`, or its slices, each with all that CUDA_VISIBLE_DEVICES may call it.

    A slice is MIG-<its UUID>, or MIG-<its card's UUID>/<GPU instance>/<compute instance> (NVIDIA's MIG User Guide,
    "CUDA Device Enumeration").
    """
    card = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = str(nvml.nvmlDeviceGetUUID(card))
    found = []
    for handle in _slices(nvml, card):
        memory, mig = nvml.nvmlDeviceGetMemoryInfo(handle), str(nvml.nvmlDeviceGetUUID(handle))
        instances = f"{nvml.nvmlDeviceGetGpuInstanceId(handle)}/{nvml.nvmlDeviceGetComputeInstanceId(handle)}"
        one = Device("cuda", nvml.nvmlDeviceGetName(handle), int(memory.total), int(memory.free), index, mig=mig)
        found.append((one, [str(index), uuid, mig, f"MIG-{uuid}/{instances}"]))
    return found or [(_card(nvml, index), [str(index), uuid])]


def _slices(nvml: Any, card: Any) -> list[Any]:
    """The handles of a card's MIG slices; none where it is not sliced."""
    found = []
    with contextlib.suppress(nvml.NVMLError):  # cards that cannot be sliced say so with an error
        if nvml.nvmlDeviceGetMigMode(card)[0]:
            for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card)):
                with contextlib.suppress(nvml.NVMLError):  # a place without a slice
                    found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, place))
    return found


def _card(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:  # the card has no memory of its own, but the machine's
        machine = psutil.virtual_memory()
        return Device("cuda", name, int(machine.total), int(machine.available), index, unified=True)
    return Device("cuda", name, int(memory.total), int(memory.free), index)


def _handle(nvml: Any, device: Device) -> Any:
    """NVML's handle of a card or slice. Raises NVMLError."""
    card = nvml.nvmlDeviceGetHandleByIndex(device.index)
    if not device.mig:
        return card
    return next((each for each in _slices(nvml, card) if nvml.nvmlDeviceGetUUID(each) == device.mig), card)


@cache
def on_vgpu() -> bool:
    """Whether a card is a share of one that a hypervisor divides among machines (NVIDIA vGPU)."""
    nvml = nvml_module()
    if nvml is None:
        return False
    with contextlib.suppress(nvml.NVMLError):
        cards = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        return any(
            nvml.nvmlDeviceGetVirtualizationMode(card) == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU for card in cards
        )
    return False


def device() -> Device:
    """The device that a run would use now: the freest NVIDIA card, Apple's GPU, else the CPU."""
    cards = cuda_devices()
    if cards:
        return cards[0]
    memory = psutil.virtual_memory()
    total, free = min(memory.total, _cgroup_limit()), free_ram()
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Device("mps", f"Apple {platform.machine()}", total, free)
    return Device("cpu", f"CPU · {cpu_cores()} cores", total, free)


def free_ram() -> int:
    """Bytes of ordinary memory that are free, within what the container's limit leaves."""
    return max(0, min(psutil.virtual_memory().available, _cgroup_limit() - _cgroup_used()))


def claim_card(card: Device | None = None) -> None:
    """Make `card`, or else the freest, the only one that this process sees. Call it before torch is imported.

    A single card that the user has chosen already, by number or UUID, is kept; the number is nvidia-smi's, unless
    CUDA_DEVICE_ORDER says otherwise. A slice (MIG) is named by its UUID: by its card's number CUDA takes the first.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    chosen = card or device()
    if chosen.kind != "cuda":
        return
    if named and "," not in named and not chosen.mig:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        return
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML counts
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen.mig or str(chosen.index)


def cpu_cores() -> int:
    """Cores that this process may run on."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1


def _cgroup_limit() -> int:
    """The container's memory limit in bytes; very large where there is none."""
    try:
        text = (CGROUP / "memory.max").read_text().strip()
    except OSError:
        return 2**63
    return int(text) if text.isdigit() else 2**63


def _cgroup_used() -> int:
    """What the container takes of its limit, without files' contents that the kernel would give up; 0 without one.

    (Linux, Documentation/admin-guide/cgroup-v2.rst: `memory.current`, and `inactive_file` of `memory.stat`.)
    """
    try:
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return used - int(counts["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this CPU, as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())


def cuda_capability(index: int) -> tuple[int, int]:
    """CUDA compute capability of the card at `index`, through NVML."""
    nvml = nvml_module()
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(nvml.nvmlDeviceGetHandleByIndex(index))
    return int(major), int(minor)


def cuda_driver() -> str:
    """The NVIDIA driver's version."""
    return str(nvml_module().nvmlSystemGetDriverVersion())


class ReadingError(Exception):
    """The driver does not give this reading."""


class Used(NamedTuple):
    """Bytes in use: by one process (None where the driver hides it), by all, and by none that the driver names.

    NVML counts managed memory, where paged optimizer states live, to the card and to no process. In a container that is
    what its neighbours use, too.
    """

    process: int | None
    device: int
    unattributed: int | None = None


def device_used_bytes(chosen: Device, pid: int) -> Used:
    """The device memory that the process `pid` uses now, and that all processes use.

    On a CPU that is resident memory. A driver hides what processes use in containers, on Windows and in WSL.
    Raises ReadingError where the driver or the process does not answer.
    """
    if chosen.kind != "cuda":
        try:
            return Used(int(psutil.Process(pid).memory_info().rss), int(psutil.virtual_memory().used))
        except psutil.Error as error:
            raise ReadingError(str(error)) from None
    nvml = nvml_module()
    try:
        handle = _handle(nvml, chosen)
        # NVML has no figure for memory that the card shares with the processor.
        used = int((psutil.virtual_memory() if chosen.unified else nvml.nvmlDeviceGetMemoryInfo(handle)).used)
    except nvml.NVMLError as error:
        raise ReadingError(str(error)) from None
    named: dict[int, int | None] = {}
    unattributed: int | None = None
    with contextlib.suppress(nvml.NVMLError):
        for listed in (nvml.nvmlDeviceGetGraphicsRunningProcesses, nvml.nvmlDeviceGetComputeRunningProcesses):
            named |= {each.pid: each.usedGpuMemory for each in listed(handle)}
        of_each = [each for each in named.values() if each]
        unattributed = used - sum(of_each) if len(of_each) == len(named) and not chosen.unified else None
    return Used(named.get(pid) or None, used, unattributed)


def temperature_and_power(chosen: Device) -> dict[str, float | None]:
    """`temperature_celsius` and `power_watts` of an NVIDIA card, None where unknown; empty for other devices."""
    if chosen.kind != "cuda":
        return {}
    nvml = nvml_module()

    def read(of: Callable[[Any], float]) -> float | None:
        with contextlib.suppress(nvml.NVMLError):
            return float(of(nvml.nvmlDeviceGetHandleByIndex(chosen.index)))
        return None

    return {
        "temperature_celsius": read(lambda card: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
        "power_watts": read(lambda card: nvml.nvmlDeviceGetPowerUsage(card) / 1000),  # it tells milliwatts
    }
