"""The process of one export: does it, and writes how far it is into the job's file.

python -m core.export.worker JOB.json      (started by core/export/jobs.py)
"""

import signal
import sys
import time
import traceback
from pathlib import Path

from core.basemodel.code_consent import trust_only
from core.errors import NibbleError
from core.export.jobs import ExportJob, tell_stopped
from core.export.pipeline import export
from core.export.proof.report import sentence
from core.runs.find import find_run
from core.system.hardware import claim_card
from core.text.library_errors import telling_line
from core.workspace import Workspace

TOLD_SECONDS = 0.5


class _Stopped(BaseException):
    """The person pressed Stop. No `except Exception` may take it for a failure: what is finished is kept."""


def main(file: Path) -> int:
    """Do the job in `file`. Returns the exit status."""
    job = ExportJob(file)
    signal.signal(signal.SIGTERM, _stop)
    claim_card()
    values = job.read()
    workspace = Workspace.open(values["workspace"])
    trust_only(workspace)
    told = 0.0

    def say(line: str, share: float | None) -> None:
        nonlocal told
        if share is None or time.monotonic() - told >= TOLD_SECONDS:
            told = time.monotonic()
            job.write(message=line, share=share)

    try:
        result = export(workspace, find_run(workspace, values["run"]), job.options(), say)
    except _Stopped:
        tell_stopped(job)
        return 1
    except NibbleError as error:
        job.write(state="failed", message=str(error), share=None)
        return 1
    except Exception as error:
        traceback.print_exc()
        said = f"This should not have happened ({telling_line(error, kind=True)}). Please report it."
        job.write(state="failed", message=said, share=None)
        return 1
    job.write(state="done", message=sentence(result["verified"]), share=1.0, result=result)
    return 0


def _stop(*_: object) -> None:
    raise _Stopped


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
