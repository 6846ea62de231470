"""One run on the screen: the same five parts on the Train tab while it trains and on the Runs tab ever after."""

import gradio as gr

from app.ui.updates import Seen, Updates, is_new

PARTS = ("head", "loss", "memory", "says", "events")


class RunView:
    """Where the parts of a run are shown: its state in `head`, with its buttons below; then the charts and the rest."""

    def __init__(self, head: gr.HTML) -> None:
        self.head = head
        with gr.Row(elem_classes="nb-charts", equal_height=True):
            self.loss = gr.HTML(elem_classes="nb-slot", min_width=320)
            self.memory = gr.HTML(elem_classes="nb-slot", min_width=320)
        self.says = gr.HTML(elem_classes="nb-slot")
        with gr.Accordion("Events", open=False):
            self.events = gr.HTML(elem_classes="nb-slot")

    def changes(self, parts: dict[str, str], seen: Seen) -> Updates:
        """Updates for the parts that differ from what this browser has `seen`, which is brought up to date."""
        return {getattr(self, part): html for part, html in parts.items() if is_new(seen, part, html)}

    def components(self) -> list[gr.HTML]:
        """All of its components."""
        return [getattr(self, part) for part in PARTS]
