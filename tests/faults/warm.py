"""A process that has imported everything a worker needs, and forks one on demand: a start costs no ten seconds.

python -m tests.faults.warm   reads a line of JSON a worker: {"folder", "fault", "arguments"}; answers {"pid"}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import core.train.loop  # noqa: F401
import core.train.worker as worker
from core.train.ranks import forget_place
from tests.faults import inject

MODELS = ("llama", "qwen3")


def main() -> None:
    """Fork a worker for each line of standard input; gone workers are not kept as zombies."""
    _import_more()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _work(wanted)
        print(json.dumps({"pid": pid}), flush=True)


def _import_more() -> None:
    """What a worker imports only once it needs it."""
    import importlib

    for name in MODELS:
        importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    for name in ("bitsandbytes", "core.memory.trace", "core.train.parallel", "torch._dynamo"):
        importlib.import_module(name)


def _work(wanted: dict[str, Any]) -> None:
    """Be the worker of a run, with a fault; never returns."""
    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(Path(wanted["folder"]) / "worker.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(Path(worker.__file__).parents[2])
        forget_place()
        if wanted["fault"]:
            getattr(inject, wanted["fault"])(Path(wanted["folder"]), **wanted["arguments"])
        status = worker.main(wanted["folder"])
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
