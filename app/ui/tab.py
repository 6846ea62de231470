"""What a tab is to the page: laid out, wired, filled when the page is opened, and kept up to date."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gradio as gr
from gradio.components import Component

from app.ui.form import Form
from app.ui.updates import Seen, Updates


@dataclass(frozen=True)
class PageParts:
    """What a tab may touch beyond itself: the row of tabs, and the form whose settings Train and Data both show."""

    tabs: gr.Tabs
    form: Form


class Tab:
    """One tab of the page. A subclass overrides what it has, and says in `build` which components change.

    `filled` and `filled_later` change when the page is opened. A tick is given `inputs`, beside what the browser has
    seen, and changes `outputs`; without those the tab never changes by itself. `shared` is where the parts are shown
    that are the same for all pages.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    filled: Sequence[Component] = ()
    filled_later: Sequence[Component] = ()
    inputs: Sequence[Component] = ()
    outputs: Sequence[Component] = ()
    shared: Mapping[str, gr.HTML] = {}

    def build(self) -> None:
        """Lay the components out."""

    def wire(self, page: PageParts) -> None:
        """Attach the events, once all tabs are laid out."""

    def selected(self, item: gr.Tab, page: PageParts) -> Callable[..., Any]:
        """Attach what follows when the tab comes into sight. Returns what attaches its tick after that."""
        return item.select

    def asked(self, tick_on: Callable[[Any], Any]) -> None:
        """Attach the tick to what a page changes among `inputs`: `tick_on(event)` does, and returns what follows."""

    def fill(self) -> Updates:
        """What is looked up when the page is opened."""
        return {}

    def fill_later(self) -> Updates:
        """What is looked up after that, because it takes longer or is not in sight yet."""
        return {}

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """What changed since a browser last saw the tab; `seen` is brought up to date."""
        return {}

    def has_news(self, seen: Seen) -> bool:
        """Whether a tick could have something for any page since this was last asked with `seen`."""
        return bool(self.tick(seen))

    def parts(self) -> dict[str, str]:
        """The HTML of the shared parts as it is now."""
        return {}

    def rest(self) -> None:
        """Let go what nobody has used for a while. It is called every few seconds."""

    def close(self) -> None:
        """End what is at work: the server ends."""
