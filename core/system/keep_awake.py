"""Keeps the machine awake while a run trains. Where the system does not allow that, the user is only told so."""

from __future__ import annotations

import threading
from collections.abc import Callable

ENDING_SECONDS = 2.0
HELD = "The machine is kept awake while this run trains. Closing a laptop's lid may still put it to sleep."
NOT_HELD = (
    "Nibble cannot keep this machine awake. If it goes to sleep, the run pauses and continues afterwards. Check the "
    "system's power settings."
)


class KeptAwake:
    """Inside `with`, the machine does not go to sleep when nobody uses it; its screen may.

    The outcome goes to `report`. This happens in a thread: a desktop that does not answer delays nothing, and no error
    reaches the run. The system releases it when the process ends.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="awake", daemon=True)

    def __enter__(self) -> KeptAwake:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=ENDING_SECONDS)

    def _keep(self) -> None:
        try:
            from wakepy import keep

            with keep.running(on_fail="pass") as mode:
                self._report(HELD if mode.active else NOT_HELD)
                self._end.wait()
        except Exception:  # whatever a desktop's services may do: a run does not end for it
            if not self._end.is_set():
                self._report(NOT_HELD)
