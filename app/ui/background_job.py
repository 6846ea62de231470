"""One piece of work at a time in a thread of the server: it goes on when the page is closed, and says how it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.ui import html as ui_html
from core.errors import NibbleError


class Background:
    """What works so. `busy` while it does; whoever changes what is shown, or begins, holds `_lock`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown = ""
        self.busy = False

    def html(self) -> str:
        """How it stands."""
        return self._shown

    def _begin(self, said: str, work: Callable[[], str]) -> None:
        """Do `work`, which returns what is shown at its end; `said` is shown until it says something itself."""
        self.busy, self._shown = True, ui_html.busy(said)
        threading.Thread(target=self._do, args=(work,), daemon=True).start()

    def _do(self, work: Callable[[], str]) -> None:
        try:
            self._end(work())
        except NibbleError as error:
            self._end(ui_html.error_box(str(error)))
        except Exception as error:  # a thread has nobody above it who would tell the person
            self._end(ui_html.fault_box(error))
            raise

    def _end(self, html: str) -> None:
        with self._lock:
            self._shown, self.busy = html, False
