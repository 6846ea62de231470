"""One row after another: its number, and the buttons to the row before and the next. On Train and on Data."""

import gradio as gr

from app.ui.updates import QUIET


class RowPager:
    """The components. Whoever shows rows follows the change of `row`."""

    def __init__(self) -> None:
        with gr.Row(elem_classes="nb-pager"):
            self.before = gr.Button("‹ Previous row", size="sm")
            self.row = gr.Number(1, label="Row", show_label=False, container=False, precision=0, min_width=80, scale=0)
            self.after = gr.Button("Next row ›", size="sm")

    def wire(self) -> None:
        """Let the buttons change the number."""
        self.before.click(lambda row: max(1, (row or 1) - 1), self.row, self.row, queue=False, **QUIET)
        self.after.click(lambda row: (row or 0) + 1, self.row, self.row, queue=False, **QUIET)
