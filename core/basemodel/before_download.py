"""Before a byte of weights is downloaded: whether the files on the Hub can be trained at all. Imports no torch.

What a model's architecture asks for is known by building it, which needs torch: a process of its own does that and
ends, for whoever downloads holds no torch, or not yet.
"""

from __future__ import annotations

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

    One that is here is looked at when it is loaded. `stop` is asked several times a second. Raises DownloadStopped.
    """
    if found.folder is not None:
        return
    wanted = as_process("core.model.fit", found.source, str(found.revision))
    with subprocess.Popen(
        **wanted, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            said = _wait(child, stop)
        finally:
            child.kill()
    lines = said.decode("utf-8", "replace").strip().splitlines()
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
