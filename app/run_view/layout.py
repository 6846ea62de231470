"""One run on the screen: the same five parts on the Train tab while it trains and on the Runs tab ever after."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

PARTS = ("head", "loss", "memory", "says", "events")


@dataclass(frozen=True)
class RunView:
    """Where the parts of a run are shown."""

    head: gr.HTML
    loss: gr.HTML
    memory: gr.HTML
    says: gr.HTML
    events: gr.HTML

    def changes(self, parts: dict[str, str], seen: dict[str, str]) -> dict[Any, Any]:
        """Updates for the parts that differ from what this browser has `seen`, which is brought up to date."""
        fresh = {part: html for part, html in parts.items() if seen.get(part) != html}
        seen.update(fresh)
        return {getattr(self, part): html for part, html in fresh.items()}

    def components(self) -> list[gr.HTML]:
        """All of its components."""
        return [getattr(self, part) for part in PARTS]


def build_head() -> gr.HTML:
    """Where the run's state goes; its buttons are put below it."""
    return gr.HTML(elem_classes="nb-slot")


def build_body(head: gr.HTML) -> RunView:
    """The charts and the rest, below `head`."""
    with gr.Row(elem_classes="nb-charts", equal_height=True):
        loss = gr.HTML(elem_classes="nb-slot", min_width=320)
        memory = gr.HTML(elem_classes="nb-slot", min_width=320)
    says = gr.HTML(elem_classes="nb-slot")
    with gr.Accordion("Events", open=False):
        events = gr.HTML(elem_classes="nb-slot")
    return RunView(head, loss, memory, says, events)
