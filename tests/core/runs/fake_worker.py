"""The real worker without its training, for tests: takes the device, beats, and does what the run's name says.

steps: a step every 20 ms until it is stopped. finishes, fails, dies: does so at once. deaf: hears no stop.
family: has a child, and hears no stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from core.errors import TrainingError
from core.runs.heartbeat import HeartbeatWriter
from core.runs.manifest import write_manifest
from core.runs.store import Run
from core.train import worker


def work(run: Run, heart: HeartbeatWriter) -> tuple[str, str]:
    """What `core.train.worker` does with a run, in little."""
    name = run.name
    run.write_status(state="training", total=1000)
    heart.turn_to("step")
    if name == "fails":
        raise TrainingError("It was intended to fail.")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "finishes":
        return "finished", "Finished."
    if name == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (run.dir / "child").write_text(str(child.pid))
    step = 0
    while name in ("deaf", "family") or not run.is_to_stop():
        time.sleep(0.02)
        step += 1
        heart.stepped(step)
        if step == 3:
            (run.dir / "checkpoints" / "3").mkdir()
            write_manifest(run.dir / "checkpoints" / "3", step)
            heart.saved(step)
        run.write_status(step=step)
    return "stopped", f"Stopped after {step} steps."


def _guarded(run: Run, heart: HeartbeatWriter) -> tuple[str, str]:
    try:
        return work(run, heart)
    except TrainingError as error:
        return worker._failed(run, str(error))


if __name__ == "__main__":
    replaced: Any = worker
    replaced._work = _guarded
    replaced.HANDOVER_SECONDS = float(os.environ.get("NIBBLE_TEST_HANDOVER", worker.HANDOVER_SECONDS))
    raise SystemExit(worker.main(sys.argv[1]))
