"""What the page consists of."""

from dataclasses import dataclass
from typing import TypeVar

import gradio as gr

from app.ui.tab import PageParts, Tab

T = TypeVar("T", bound=Tab)


@dataclass(frozen=True)
class Page:
    """The tabs in their order, the line above them, and what each browser has been shown."""

    strip: gr.HTML
    tabs: tuple[Tab, ...]
    parts: PageParts
    seen: gr.State

    def tab(self, kind: type[T]) -> T:
        """The tab of that kind."""
        return next(tab for tab in self.tabs if isinstance(tab, kind))
