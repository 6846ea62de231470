"""What this machine has, which dtype to compute in and why, and live readings of its memory. Imports no torch."""

import contextlib
import importlib.util
import os
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil

# Tokens at once that keep a device busy; more gains little and takes memory. By `Device.kind`.
BUSY_TOKENS = {"cpu": 4096, "mps": 4096, "cuda": 8192}


@dataclass(frozen=True)
class Device:
    """A device to train on. Sizes in bytes; `kind` is 'cuda', 'mps' or 'cpu'."""

    kind: str
    name: str
    total_bytes: int
    free_bytes: int
    index: int = 0

    def as_json(self) -> dict[str, Any]:
        """The fields that `doctor` prints."""
        return {key: value for key, value in asdict(self).items() if key != "index"}


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
    """The NVIDIA cards that this process may use and the installed torch can use, freest first, read through NVML."""
    nvml = nvml_module()
    if nvml is None or not torch_has_cuda():
        return []
    allowed = _allowed_cards(nvml)
    cards = [_card(nvml, index) for index in range(nvml.nvmlDeviceGetCount()) if allowed is None or index in allowed]
    return sorted(cards, key=lambda card: -card.free_bytes)


def unused_card() -> str | None:
    """The name of an NVIDIA card that is there but that the installed torch cannot use; None where there is none."""
    nvml = nvml_module()
    if nvml is None or torch_has_cuda() or not nvml.nvmlDeviceGetCount():
        return None
    return str(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)))


@cache
def torch_has_cuda() -> bool:
    """Whether the installed torch is built for CUDA; read from its files, for importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=]*=\s*['\"]", version, re.MULTILINE) is not None


def _allowed_cards(nvml: Any) -> set[int] | None:
    """The cards that CUDA_VISIBLE_DEVICES allows, by number or UUID; None where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    names = [name.strip() for name in visible.split(",") if name.strip()]
    count = nvml.nvmlDeviceGetCount()
    uuids = [str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count)]
    numbers = {int(name) for name in names if name.isdigit()}
    return numbers | {index for index, uuid in enumerate(uuids) for name in names if uuid.startswith(name)}


def _card(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:  # the card has no memory of its own, but the machine's
        machine = psutil.virtual_memory()
        return Device("cuda", name, int(machine.total), int(machine.available), index)
    return Device("cuda", name, int(memory.total), int(memory.free), index)


def device() -> Device:
    """The device that a run would use now: the freest NVIDIA card, Apple's GPU, else the CPU."""
    cards = cuda_devices()
    if cards:
        return cards[0]
    memory = psutil.virtual_memory()
    total, free = min(memory.total, _cgroup_limit()), memory.available
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Device("mps", f"Apple {platform.machine()}", total, free)
    return Device("cpu", f"CPU · {cpu_cores()} cores", total, min(free, total))


def claim_card(card: Device | None = None) -> None:
    """Make `card`, or else the freest, the only one that this process sees. Call it before torch is imported.

    A single card that the user has chosen already, by number or UUID, is kept; the number is nvidia-smi's, unless
    CUDA_DEVICE_ORDER says otherwise.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    chosen = card or device()
    if chosen.kind != "cuda":
        return
    if named and "," not in named:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        return
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML counts
    os.environ["CUDA_VISIBLE_DEVICES"] = str(chosen.index)


def cpu_cores() -> int:
    """Cores that this process may run on."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1


def _cgroup_limit() -> int:
    """The container's memory limit in bytes; very large where there is none."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return 2**63
    return int(text) if text.isdigit() else 2**63


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this CPU, as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())


def compute_dtype(kind: str, capability: tuple[int, int] | None = None) -> tuple[str, str]:
    """The dtype to compute in on a device of `kind`, and the reason, for the user.

    `capability` is CUDA's compute capability. On a CPU without AMX, bf16 was measured up to 30 times slower
    than fp32, adapters included. ONEDNN_MAX_CPU_ISA may keep torch off AMX (oneDNN, "CPU Dispatcher Control").
    """
    if kind == "cuda":
        major, minor = capability or (0, 0)
        if major >= 8:
            return "bfloat16", f"compute capability {major}.{minor} supports bf16"
        return "float16", f"compute capability {major}.{minor} does not support bf16"
    if kind == "mps":
        return "float16", "Apple's GPU is fast in fp16"
    if "amx_bf16" in cpu_flags():
        allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
        if allowed in ("", "DEFAULT", "ALL") or "AMX" in allowed:
            return "bfloat16", "this CPU has AMX, which is fast in bf16"
        return "float32", f"this CPU has AMX, but ONEDNN_MAX_CPU_ISA={allowed} prevents torch from using it"
    return "float32", "on a CPU without AMX, fp32 is fastest and bf16 can be 30 times slower"


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
        handle = nvml.nvmlDeviceGetHandleByIndex(chosen.index)
        used = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
    except nvml.NVMLError as error:
        raise ReadingError(str(error)) from None
    named: dict[int, int | None] = {}
    unattributed: int | None = None
    with contextlib.suppress(nvml.NVMLError):
        for listed in (nvml.nvmlDeviceGetGraphicsRunningProcesses, nvml.nvmlDeviceGetComputeRunningProcesses):
            named |= {each.pid: each.usedGpuMemory for each in listed(handle)}
        of_each = [each for each in named.values() if each]
        unattributed = used - sum(of_each) if len(of_each) == len(named) else None
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
