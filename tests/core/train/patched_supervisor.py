"""A supervisor whose workers run a few lines before anything else."""

from __future__ import annotations

import subprocess
import sys
import time

from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.system.process import process_started
from core.workspace import ROOT


class PatchedSupervisor(Supervisor):
    """Starts its worker, and not the other process, with these lines run first."""

    lines: str

    def start_worker(self, run: Run) -> None:
        head, foot = "import sys; import core.train.loop as loop", "from core.train.worker import main"
        script = "\n".join([head, self.lines, foot, "sys.exit(main(sys.argv[1]))"])
        with (run.dir / "worker.log").open("wb") as log:
            child = subprocess.Popen([sys.executable, "-c", script, str(run.dir)], cwd=ROOT, stdout=log, stderr=log)
        run.write_status(state="preparing", pid=child.pid, pid_started=process_started(child.pid), started=time.time())
