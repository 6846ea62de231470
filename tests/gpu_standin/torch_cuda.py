"""torch.cuda over the stand-in: what a CPU build of torch leaves out in Python and C."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.gpu_standin.install import figures, library, machine, visible_cards

# Multiprocessors by compute capability, for whoever sizes work by them.
MULTIPROCESSORS = {(6, 1): 28, (7, 5): 30, (8, 6): 28, (8, 9): 128, (12, 0): 170}
# What torch's wheels have kernels for: of CUDA 12.6, the last with Pascal, and of CUDA 13.
OLD_KERNELS = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
NEW_KERNELS = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


class Event:
    """torch.cuda.Event: a place in a stream's work."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._recorded: int | None = None
        self._at = 0.0

    def record(self, stream: Any = None) -> None:
        """Mark what `stream`, or the current one, was asked for until now."""
        self._forget()
        on = library().standin_current_stream() if stream is None else stream.stream_id
        self._recorded, self._at = library().standin_record_event(on), time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        """Let `stream`, or the current one, wait; an event that was never recorded is over, as in CUDA."""
        who = library().standin_current_stream() if stream is None else stream.stream_id
        if self._recorded is not None:
            library().standin_stream_waits(who, self._recorded)

    def synchronize(self) -> None:
        """Let the host wait."""
        if self._recorded is not None:
            library().standin_host_waits(self._recorded)

    def query(self) -> bool:
        """Whether it is over."""
        return True

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds between two events, as the host called for them."""
        return (end._at - self._at) * 1000

    def _forget(self) -> None:
        if self._recorded is not None:
            library().standin_forget_event(self._recorded)
            self._recorded = None

    def __del__(self) -> None:
        self._forget()


class Stream:
    """torch.cuda.Stream."""

    def __init__(self, device: Any = None, priority: int = 0, stream_id: int | None = None, **_: Any) -> None:
        self.stream_id = library().standin_new_stream() if stream_id is None else stream_id
        self.cuda_stream = self.stream_id
        self.priority = priority

    @property
    def device(self) -> Any:
        """The card."""
        import torch

        return torch.device("cuda", 0)

    def record_event(self, event: Event | None = None) -> Event:
        """An event behind what it was asked for until now."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Wait for `event` before what comes next."""
        event.wait(self)

    def wait_stream(self, stream: "Stream") -> None:
        """Wait for all that `stream` was asked for until now."""
        stream.record_event().wait(self)

    def synchronize(self) -> None:
        """Let the host wait for all of it."""
        self.record_event().synchronize()

    def query(self) -> bool:
        """Whether all of it is done."""
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.stream_id == self.stream_id

    def __hash__(self) -> int:
        return hash(self.stream_id)


_streams = threading.local()


def current_stream(device: Any = None) -> Stream:
    """The stream of this thread."""
    number = library().standin_current_stream()
    known = getattr(_streams, "current", None)
    return known if known is not None and known.stream_id == number else Stream(stream_id=number)


def set_stream(stream: Stream) -> None:
    """Make `stream` that of this thread."""
    _streams.current = stream
    library().standin_set_stream(stream.stream_id)


@contextlib.contextmanager
def stream_context(stream: Stream | None) -> Iterator[None]:
    """torch.cuda.stream."""
    before = current_stream()
    set_stream(stream or before)
    try:
        yield
    finally:
        set_stream(before)


class _DeviceContext:
    """torch.cuda.device: there is one card only."""

    def __init__(self, device: Any = None) -> None:
        self.idx = self.prev_idx = 0

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> bool:
        return False


def _memory_stats(device: Any = None) -> dict[str, int]:
    now = figures()
    return {
        "allocated_bytes.all.current": now.allocated,
        "allocated_bytes.all.peak": now.peak,
        "reserved_bytes.all.current": now.reserved,
        "reserved_bytes.all.peak": now.peak_reserved,
        "num_ooms": now.out_of_memory,
        "num_alloc_retries": 0,
    }


def _card() -> tuple[str, tuple[int, int]]:
    cards = visible_cards()
    if not cards:
        raise RuntimeError("No CUDA GPUs are available")
    return cards[0].name.decode(), (int(cards[0].major), int(cards[0].minor))


def _properties(device: Any = None) -> Any:
    name, capability = _card()
    return SimpleNamespace(
        name=name,
        major=capability[0],
        minor=capability[1],
        total_memory=figures().total,
        multi_processor_count=MULTIPROCESSORS.get(capability, 20),
        gcnArchName="",
        warp_size=32,
        max_threads_per_multi_processor=1536,
        regs_per_multiprocessor=65536,
        L2_cache_size=3 << 20,
        shared_memory_per_block=49152,
        is_integrated=False,
    )


def _questions() -> dict[str, Callable[..., Any]]:
    """What torch.cuda answers about the card and its memory, by the functions' names."""
    capability = lambda device=None: _card()[1]  # noqa: E731
    return {
        "is_available": lambda: bool(visible_cards()),
        "device_count": lambda: len(visible_cards()),
        "_device_count_nvml": lambda: len(visible_cards()),
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "_is_compiled": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "get_device_name": lambda device=None: _card()[0],
        "get_device_capability": capability,
        "get_device_properties": _properties,
        "get_arch_list": lambda: NEW_KERNELS if capability() >= (7, 5) else OLD_KERNELS,
        "is_bf16_supported": lambda including_emulation=True: capability() >= (8, 0) or including_emulation,
        "is_tf32_supported": lambda: capability() >= (8, 0),
        "is_current_stream_capturing": lambda: False,
        "can_device_access_peer": lambda one, other: False,
        "mem_get_info": lambda device=None: (figures().free, figures().total),
        "memory_allocated": lambda device=None: figures().allocated,
        "max_memory_allocated": lambda device=None: figures().peak,
        "memory_reserved": lambda device=None: figures().reserved,
        "max_memory_reserved": lambda device=None: figures().peak_reserved,
        "memory_stats": _memory_stats,
        "reset_peak_memory_stats": lambda device=None: library().standin_reset_peak(),
        "reset_max_memory_allocated": lambda device=None: library().standin_reset_peak(),
        "set_per_process_memory_fraction": lambda fraction, device=None: library().standin_set_fraction(fraction),
        "empty_cache": lambda: library().standin_empty_cache(),
        "ipc_collect": lambda: None,
    }


def _random(torch: Any) -> dict[str, Callable[..., Any]]:
    def seed(number: int) -> None:
        library().standin_seed(int(number) & (2**64 - 1))

    return {
        "get_rng_state": lambda device="cuda": torch.ops.gpu_standin.random_state(),
        "get_rng_state_all": lambda: [torch.ops.gpu_standin.random_state()],
        "set_rng_state": lambda state, device="cuda": torch.ops.gpu_standin.set_random_state(state),
        "set_rng_state_all": lambda states: torch.ops.gpu_standin.set_random_state(next(iter(states))),
        "manual_seed": seed,
        "manual_seed_all": seed,
    }


def install(torch: Any) -> None:
    """Replace what torch.cuda cannot do without CUDA."""
    cuda = torch.cuda
    streams: dict[str, Any] = {
        "Stream": Stream,
        "Event": Event,
        "stream": stream_context,
        "set_stream": set_stream,
        "current_stream": current_stream,
        "default_stream": lambda device=None: Stream(stream_id=0),
        "synchronize": lambda device=None: library().standin_synchronize(),
        "device": _DeviceContext,
        "device_of": _DeviceContext,
    }
    for name, replacement in (_questions() | _random(torch) | streams).items():
        setattr(cuda, name, replacement)
        for module in (cuda.memory, cuda.streams, cuda.random):
            if hasattr(module, name):
                setattr(module, name, replacement)
    cuda._initialized = True  # gradient checkpointing keeps the card's random numbers only then
    torch.Event = Event
    torch.Tensor.record_stream = lambda self, stream: torch.ops.gpu_standin.reuse_waits(self)
    first = machine().card[0]  # torch's wheels for CUDA 13 have no kernels for cards before Turing
    torch.version.cuda = "13.0" if (first.major, first.minor) >= (7, 5) else "12.6"
    torch.backends.cuda.is_built = lambda: True
    torch._C._cuda_getCurrentRawStream = lambda device: library().standin_current_stream()
    torch._C._cuda_getDevice = lambda: 0
    torch._C._cuda_clearCublasWorkspaces = lambda: library().standin_clear_workspaces()
    _complete_storages(torch.UntypedStorage, torch)
    _join_over_gloo(torch)


def _join_over_gloo(torch: Any) -> None:
    """operators.h has processes speak over gloo where they ask for NCCL."""
    original = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, *arguments: Any, **named: Any) -> None:
        original(backend and backend.replace("nccl", "gloo"), *arguments, **named)

    torch.distributed.init_process_group = init_process_group


def _complete_storages(storages: Any, torch: ModuleType) -> None:
    clone_on_cpu, resize_on_cpu = storages.clone, storages.resize_

    def whole(storage: Any) -> Any:
        return torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage, 0, (storage.nbytes(),), (1,))

    def clone(self: Any) -> Any:
        return clone_on_cpu(self) if self.device.type != "cuda" else whole(self).clone().untyped_storage()

    def resize(self: Any, size: int) -> Any:
        if self.device.type != "cuda":
            return resize_on_cpu(self, size)
        torch.ops.gpu_standin.resize_storage(whole(self), size)
        return self

    storages.clone, storages.resize_ = clone, resize
