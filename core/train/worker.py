"""The worker: one process, one run. Started by the supervisor, it outlives it, and says in status.json how it ended.

python -m core.train.worker RUN_FOLDER
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from core.basemodel.code_consent import trust_only
from core.basemodel.download import DownloadStopped
from core.errors import NibbleError
from core.runs.device_lock import DeviceHeld, hold, holder
from core.runs.heartbeat import HeartbeatWriter
from core.runs.notify import tell_end
from core.runs.store import Run
from core.system.full_disk import free_some, is_disk_full
from core.system.hardware import claim_card, cuda_devices, device
from core.system.keep_awake import KeptAwake
from core.system.process import process_started
from core.text.library_errors import telling_line
from core.train.base_model import have_base
from core.train.ranks import OtherProcesses, forget_place
from core.workspace import Workspace

HANDOVER_SECONDS = 3.0


def main(folder: str) -> int:
    """Train the run in `folder`. Returns the exit status; whatever happens, status.json says how the run ended."""
    run = Run(Path(folder))
    trust_only(Workspace(run.workspace))
    try:
        held = hold(Workspace(run.workspace), "run", run.name, run.id)
    except DeviceHeld as taken:
        return _stand_back(run, taken)
    with held:
        _take_over(run)
        signal.signal(signal.SIGTERM, lambda number, frame: run.request("stop"))
        with HeartbeatWriter(run, os.getpid()) as heartbeat, KeptAwake(lambda message: run.event("awake", message)):
            state, message = _work(run, heartbeat)
    run.write_status(state=state, ended=time.time(), message=message)
    tell_end(run)
    return int(state == "failed")


def _work(run: Run, heartbeat: HeartbeatWriter) -> tuple[str, str]:
    """Train. Returns the state that the run ended in, and its last word."""
    try:
        heartbeat.turn_to("downloading")
        have_base(run, run.recipe())  # before torch is imported: a download needs neither it nor its memory
        heartbeat.turn_to("loading")
        run.write_status(message="Starting the engine.")
        cards = cuda_devices()  # read once: a moment later another may be the freest
        claim_card(cards[0] if cards else None)
        heartbeat.device = device()
        rules = run.recipe().train
        with OtherProcesses(run, rules.devices, [card.index for card in cards]):
            from core.train.loop import train
            from core.train.parallel import join

            state = train(run, join(device().kind, rules.sharded), heartbeat)
    except DownloadStopped:
        state = "stopped"
    except NibbleError as error:
        return _failed(run, str(error))
    except Exception as error:  # the process' last word: the traceback is in the log, the reason in the status
        with contextlib.suppress(OSError):
            traceback.print_exc()
        return _failed(run, _reason(run, error))
    return state, _last_word(run, state)


def _stand_back(run: Run, taken: DeviceHeld) -> int:
    """Another worker was started at the same moment and has the device: leave `run` to it, or to the queue."""
    print(taken, file=sys.stderr)
    by = holder(Workspace(run.workspace))
    _wait_for_handover(run)
    own = {os.getpid(), os.getppid()}  # on Windows the supervisor knows .venv's launcher, which waits for this process
    if run.status().pid in own and (by is None or by.run != run.id):
        run.write_status(state="queued", pid=None, pid_started=None, started=None, message="")
    return 1


def _take_over(run: Run) -> None:
    """Wait until the supervisor has recorded this process: from then on it alone writes the status.

    If the supervisor dies in between, or names a process that does not have the device, record it here.
    """
    if not _wait_for_handover(run):
        me = {"pid": os.getpid(), "pid_started": process_started(os.getpid())}
        run.write_status(state="preparing", started=time.time(), **me)


def _wait_for_handover(run: Run) -> bool:
    """Wait a moment for the supervisor to record the run's process. Returns whether it is this one."""
    deadline = time.monotonic() + HANDOVER_SECONDS
    while (pid := run.status().pid) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return pid == os.getpid()


def _failed(run: Run, reason: str) -> tuple[str, str]:
    with contextlib.suppress(OSError):  # the log is on the same disk, which may be full
        print(reason, file=sys.stderr)
    run.event("error", reason)
    return "failed", reason


def _reason(run: Run, error: Exception) -> str:
    """An unforeseen error in one sentence."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "Memory ran out. Raise the budget, choose a smaller model, or lower data.max_length."
    if is_disk_full(error):
        return f"The disk is full. {free_some(run.workspace)} Then resume the run."
    return f"{telling_line(error, kind=True)}. See the end of the log; please report it."


def _last_word(run: Run, state: str) -> str:
    result = run.result()
    if run.status().resumed_from_step and not result:
        return f"Stopped before another step: progress up to step {run.status().step:,} is in its checkpoint."
    if not result:
        return "Stopped before the first step; nothing was learned."
    before, after = result.get("eval_loss_before"), result.get("eval_loss")
    learned = f" Evaluation loss {before:.3f} → {after:.3f}." if before is not None and after is not None else ""
    return f"{state.capitalize()} after {result['steps']:,} steps.{learned}"


if __name__ == "__main__":
    forget_place()
    raise SystemExit(main(sys.argv[1]))
