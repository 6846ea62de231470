"""One row after another: its number, and the buttons to the row before and the next. On Train and on Data."""

from dataclasses import dataclass

import gradio as gr

from app.ui.updates import QUIET


@dataclass(frozen=True)
class RowPager:
    """The components. Whoever shows rows follows the change of `row`."""

    before: gr.Button
    row: gr.Number
    after: gr.Button

    def wire(self) -> None:
        """Let the buttons change the number."""
        self.before.click(lambda row: max(1, (row or 1) - 1), self.row, self.row, queue=False, **QUIET)
        self.after.click(lambda row: (row or 0) + 1, self.row, self.row, queue=False, **QUIET)


def build_pager() -> RowPager:
    """Lay it out."""
    with gr.Row(elem_classes="nb-pager"):
        before = gr.Button("‹ Previous row", size="sm")
        row = gr.Number(1, label="Row", show_label=False, container=False, precision=0, min_width=80, scale=0)
        after = gr.Button("Next row ›", size="sm")
    return RowPager(before, row, after)
