"""The processes beside the worker, where a run trains on several devices: started, watched and ended. Imports no torch.

Rank 0 is the worker itself. The others are its children, so that whoever ends the worker's family ends them all; and a
child whose parent is gone ends by itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from core.errors import NibbleError, RecipeError, RunError
from core.recipe import Recipe
from core.runs.manifest import newest_valid
from core.runs.store import Run
from core.system.hardware import cpu_cores, cuda_devices, device
from core.system.process import child_environment
from core.text.library_errors import ended_by_bitsandbytes, telling_line_of
from core.workspace import ROOT

# Where accelerate's launcher, torchrun and we ourselves write a process' place among those that train together.
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
LOOK_EVERY_SECONDS = 0.5
# How long the worker may take to notice by itself that a process is gone; NCCL never does.
GRACE_SECONDS = 20.0


def refuse_devices(recipe: Recipe) -> None:
    """Raise RecipeError for more devices than there are here (GPUs, or else cores), or a model sharded over one."""
    if recipe.train.sharded and recipe.train.devices == 1:
        raise RecipeError(
            "train.sharded shards the model over several devices, but train.devices is 1. Set train.devices to how "
            "many there are, or train.sharded to false."
        )
    cards = cuda_devices()
    most = len(cards) or (cpu_cores() if device().kind == "cpu" else 1)
    sliced = any(card.mig for card in cards)
    if cards and (sys.platform == "win32" or sliced):  # torch has no NCCL there, and NCCL joins no slices of a card
        most = 1
    if recipe.train.devices > most:
        have = f"{len(cards)} GPUs that torch can use" if cards else f"no NVIDIA GPU, and cores for {most} processes"
        have = f"{len(cards)} MIG slices, which cannot train together" if sliced else have
        raise RecipeError(
            f"train.devices: {recipe.train.devices} is not possible here; this machine has {have}. "
            f"Allowed: 1 to {most}."
        )


class OtherProcesses:
    """The other processes of a run on this machine, from before the model is loaded until the run has ended.

    Sets this process' own place in the environment, for `core.train.parallel.join`. Where a launcher has set it, the
    others are there already.
    """

    def __init__(self, run: Run, count: int, cards: list[int]) -> None:
        """`cards` are the GPUs by number, the worker's own first; none on a CPU."""
        self.run, self.cards = run, cards
        self.count = 1 if "WORLD_SIZE" in os.environ else count
        self._children: list[subprocess.Popen[bytes]] = []
        self._over = threading.Event()

    def __enter__(self) -> OtherProcesses:
        if self.count == 1:
            return self
        port = str(free_port())
        for rank in range(1, self.count):
            self._children.append(self._start(rank, port))
        os.environ.update({**_place(0, self.count, port), **self._threads()})
        threading.Thread(target=self._watch, daemon=True).start()
        on = "GPUs" if self.cards else "processes"
        what = "a shard of the model" if self.run.recipe().train.sharded else "the whole model"
        sentence = f"{self.count} {on} train together: each holds {what} and processes its share of every step."
        self.run.event("devices", sentence)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the others. Raises RunError where one of them ended first: then that is why this one failed."""
        self._over.set()
        lost = self._lost(seconds=2.0) if error is not None else None
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        for child in self._children:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if lost is not None and not isinstance(error, NibbleError):
            raise RunError(lost) from error

    def _start(self, rank: int, port: str) -> subprocess.Popen[bytes]:
        folder = folder_of(self.run, rank)
        environment = {**child_environment(), **_place(rank, self.count, port), **self._threads()}
        if self.cards:
            environment |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(self.cards[rank])}
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "core.train.rank_process", str(self.run.dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
            )

    def _threads(self) -> dict[str, str]:
        """On a CPU the processes share its cores."""
        return {} if self.cards else {"OMP_NUM_THREADS": str(max(1, cpu_cores() // self.count))}

    def _lost(self, seconds: float) -> str | None:
        """What to say of the first child that ended with an error within `seconds`; None where none did."""
        deadline = time.monotonic() + seconds
        while True:
            for rank, child in enumerate(self._children, start=1):
                if child.poll():
                    return f"Process {rank + 1} of {self.count} {_why(self.run, rank, child.returncode)}"
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)

    def _watch(self) -> None:
        """End this process too where a child is gone and this one waits for it without end, as it does over NCCL."""
        while not self._over.wait(LOOK_EVERY_SECONDS):
            lost = self._lost(seconds=0.0)
            if lost is None or self._over.wait(GRACE_SECONDS):
                continue
            self.run.event("error", lost)
            self.run.write_status(state="failed", ended=time.time(), message=lost)
            for child in self._children:
                child.kill()
            os._exit(1)


def folder_of(run: Run, rank: int) -> Path:
    """Where process `rank` of a run, other than the worker, keeps what it has to say."""
    folder = run.dir / f"rank-{rank}"
    folder.mkdir(exist_ok=True)
    return folder


def forget_place() -> None:
    """Remove what another launcher may have left in the environment: it is not meant for this run."""
    for name in PLACE:
        os.environ.pop(name, None)


def claim_own_card() -> None:
    """Make one card this process' only one: of those that it may use, the one whose turn it is on this machine."""
    cards = sorted(card.index for card in cuda_devices())
    if len(cards) > 1:
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = str(cards[int(os.environ["LOCAL_RANK"])])


def _place(rank: int, count: int, port: str) -> dict[str, str]:
    """A process' place; all are on this machine."""
    names = dict(zip(PLACE, (rank, count, rank, count), strict=True))
    own_network = {"linux": {"GLOO_SOCKET_IFNAME": "lo"}, "darwin": {"GLOO_SOCKET_IFNAME": "lo0"}}.get(sys.platform, {})
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **own_network}
    return {**{name: str(value) for name, value in names.items()}, **where}


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _why(run: Run, rank: int, code: int) -> str:
    """The end of a sentence on a process that ended with `code`, a signal where it is negative (Popen.returncode)."""
    checkpoint, _ = newest_valid(run.dir / "checkpoints")
    saved = "Nothing is saved yet."
    if checkpoint is not None:
        saved = f"Progress up to step {int(checkpoint.name):,} is saved."
    if code < 0:
        return f"was killed from outside (signal {-code}), possibly because memory ran out. {saved}"
    log = (folder_of(run, rank) / "log").read_text("utf-8", "replace")
    ended = ended_by_bitsandbytes(log)
    if ended is not None:
        return f"was ended by bitsandbytes at an error of CUDA: {ended}. {saved}"
    return f"ended: {telling_line_of(log, 'nothing in its log')}. {saved}"


def end_with_parent() -> None:
    """End this process when the one that started it is gone: alone it can do nothing."""
    parent = psutil.Process().parent()

    def watch() -> None:
        while parent is not None and parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
