"""Checks before a download whether the files on the Hub can be trained at all. Imports no torch.

What an architecture needs is found by building it, which needs torch: a separate process does that, since the one that
downloads has not imported torch.
"""

import json
import subprocess
from collections.abc import Callable

from core.basemodel.download import DownloadStopped
from core.basemodel.find import FoundModel
from core.errors import ModelError
from core.system.process import as_process

_LOOK_SECONDS = 0.1


def refuse_misfit_online(found: FoundModel, stop: Callable[[], bool] = lambda: False) -> None:
    """Raise ModelError where the weights of `found` on the Hub do not suit its architecture, or it cannot be built.

    A model that is here is checked when it is loaded. `stop` is called several times a second. Raises DownloadStopped.
    """
    if found.folder is not None:
        return
    wanted = as_process("core.model.fit", found.source, str(found.revision))
    with subprocess.Popen(
        **wanted, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            output = _wait(child, stop)
        finally:
            child.kill()
    lines = output.decode("utf-8", "replace").strip().splitlines()
    if child.returncode == 0 and lines and (error := json.loads(lines[-1])["error"]):
        raise ModelError(error)


def _wait(child: subprocess.Popen[bytes], stop: Callable[[], bool]) -> bytes:
    """What the child prints until it ends."""
    while True:
        try:
            return child.communicate(timeout=_LOOK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if stop():
                raise DownloadStopped from None
