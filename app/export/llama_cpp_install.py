"""The install of llama.cpp on request: in a thread of the server, one at a time."""

from __future__ import annotations

from app.ui import html
from app.ui.background_job import BackgroundJob
from core.setup import llama_cpp


class LlamaCppInstall(BackgroundJob):
    """At most one install at a time."""

    def press(self) -> None:
        """Install it."""
        with self._lock:
            if not self.busy and not llama_cpp.installed():
                self.start(lambda stopping: self._install(), "Installing llama.cpp…")

    def _install(self) -> None:
        version = llama_cpp.install(lambda line: self.show(f"Installing llama.cpp… {line[:120]}"))
        said = f"llama.cpp ({version}) is installed. GGUF exports are now verified with it."
        self.result = html.note_box(said)
