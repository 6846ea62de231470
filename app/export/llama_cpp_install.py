"""The install of llama.cpp on request: in a thread of the server, one at a time."""

from __future__ import annotations

from app.ui import html
from app.ui.background_job import Background
from core.setup import llama_cpp


class LlamaCppInstall(Background):
    """At most one install at a time."""

    def press(self) -> None:
        """Install it."""
        with self._lock:
            if not self.busy and not llama_cpp.installed():
                self._begin("Installing llama.cpp…", self._install)

    def _install(self) -> str:
        version = llama_cpp.install(self._tell)
        return html.note_box(f"llama.cpp ({version}) is installed. Exports of GGUFs are opened by it from now on.")

    def _tell(self, line: str) -> None:
        self._shown = html.busy(f"Installing llama.cpp… {line[:120]}")
