"""What stands on the Runs tab: the table, the comparison, and the run that is open."""

from typing import Any

import gradio as gr

from app.run_view.layout import RunView
from app.runs.table_html import STATES, TableView

ACROSS = [("Steps", "step"), ("Time", "seconds"), ("Tokens", "tokens")]
# A press is marked at once by the page itself; the server's answer follows.
ACT = """
element.addEventListener("click", (event) => {
  const at = (name) => event.target.closest(`[data-${name}]`);
  const pick = at("pick"), turn = at("sort") ?? at("page"), row = at("run");
  if (pick) {
    pick.setAttribute("aria-checked", String(pick.getAttribute("aria-checked") !== "true"));
    trigger("click", { act: "pick", value: pick.dataset.pick });
  } else if (turn) {
    element.querySelector(".nb-runs")?.setAttribute("aria-busy", "true");
    const { sort, page } = turn.dataset;
    trigger("click", sort ? { act: "sort", value: sort } : { act: "page", value: page });
  } else if (row) {
    element.querySelector("tr.nb-open")?.classList.remove("nb-open");
    row.classList.add("nb-open");
    trigger("click", { act: "open", value: row.dataset.run });
  }
});
"""
# Rows that changed while the table stands: only they are sent, and only their cells are replaced.
PATCH = """
watch("value", () => setTimeout(() => {  // a table that came with it is drawn by then
  for (const fresh of element.querySelectorAll("tr[data-run]")) {
    const row = document.querySelector(`.nb-runs tr[data-run="${CSS.escape(fresh.dataset.run)}"]`);
    if (!row) continue;
    row.className = fresh.className;
    [...fresh.cells].forEach((cell, at) => {
      if (row.cells[at].innerHTML !== cell.innerHTML) row.cells[at].innerHTML = cell.innerHTML;
    });
  }
}, 50));
"""
COME_INTO_SIGHT = """
() => requestAnimationFrame(() => setTimeout(() =>
  document.querySelector(".nb-opened")?.scrollIntoView({ behavior: "smooth", block: "start" }), 150))
"""


class RunsLayout:
    """The components of the tab that events touch. `opened` holds the id of the run below the table."""

    def __init__(self) -> None:
        self.asked, self.opened = gr.State(TableView()), gr.State("")
        self._build_list()
        with gr.Column(visible=False, elem_classes="nb-opened") as self.pane:
            head = gr.HTML(elem_classes="nb-slot")
            self.noted = gr.HTML(elem_classes="nb-slot")
            self._build_actions()
            with gr.Accordion("Name, tags and note", open=False):
                with gr.Row(elem_classes="nb-fields"):
                    self.name = gr.Textbox(label="Name", max_length=80, max_lines=1, info="The run's name.")
                    self.tags = gr.Textbox(
                        label="Tags", max_lines=1, max_length=200, info="Separated by commas. Searchable."
                    )
                self.note = gr.Textbox(label="Note", lines=2, max_length=4000, info="Anything worth remembering.")
                self.save = gr.Button("Save", elem_classes="nb-narrow")
            self.view = RunView(head)
            with gr.Accordion("Last log lines", open=False):
                self.log = gr.HTML(elem_classes="nb-slot")
            self.recipe = gr.HTML(elem_classes="nb-slot nb-papers")

    def _build_list(self) -> None:
        with gr.Row(visible=False, elem_classes="nb-tools") as self.tools:
            self.search = gr.Textbox(
                label="Search",
                placeholder="Search name, base model, dataset or tags",
                max_lines=1,
                scale=3,
                min_width=240,
            )
            self.state = gr.Dropdown(STATES, value="", label="State", scale=1, min_width=150)
        self.table = gr.HTML(elem_classes="nb-slot", js_on_load=ACT)
        self.patch = gr.HTML(elem_classes="nb-slot nb-patch", js_on_load=PATCH)
        self.to_train = gr.Button(
            "Train your first adapter", variant="primary", visible=False, elem_classes="nb-narrow"
        )
        with gr.Row(visible=False, elem_classes="nb-actions") as self.picks:
            self.compare = gr.Button("Compare", variant="primary")
            self.unpick = gr.Button("Clear selection")
        with gr.Column(visible=False, elem_classes="nb-comparison") as self.compared:
            with gr.Row(elem_classes="nb-actions nb-along"):
                self.along = gr.Radio(ACROSS, value="step", label="X axis", container=False)
                self.close = gr.Button("Close comparison")
            self.comparison = gr.HTML(elem_classes="nb-slot")

    def _build_actions(self) -> None:
        with gr.Row(elem_classes="nb-actions"):
            self.stop = gr.Button("Stop", variant="stop", visible=False)
            self.end_now = gr.Button("Force stop", variant="stop", visible=False)
            self.chat = gr.Button("Chat with it", variant="primary", visible=False)
            self.export = gr.Button("Export", visible=False)
            self.train_further = gr.Button("Continue training", visible=False)
            self.resume = gr.Button("Resume", visible=False)
            self.reuse = gr.Button("Use these settings")
            self.sooner = gr.Button("Move up", visible=False)
            self.later = gr.Button("Move down", visible=False)
            self.delete = gr.Button("Delete…", variant="stop", visible=False)
        with gr.Group(visible=False, elem_classes="nb-part nb-longer") as self.longer:
            gr.HTML(
                "<p>Resumes from the last complete checkpoint, exactly as if the run had never stopped. For a finished "
                "run, set more epochs or steps.</p>",
                elem_classes="nb-slot",
            )
            with gr.Row(elem_classes="nb-fields"):
                self.epochs = gr.Number(label="Epochs", info="In total, including the epochs already done.")
                self.steps = gr.Number(label="Max steps", precision=0, info="In total. Overrides the epochs.")
                self.rate = gr.Number(label="Learning rate", info="From the checkpoint on.")
            with gr.Row(elem_classes="nb-actions"):
                self.go_on = gr.Button("Resume", variant="primary")
                self.not_now = gr.Button("Cancel")
        with gr.Row(visible=False, elem_classes="nb-actions nb-sure") as self.sure:
            self.question = gr.HTML(elem_classes="nb-slot")
            self.delete_now = gr.Button("Delete", variant="stop")
            self.keep = gr.Button("Cancel")
        self.message = gr.HTML(elem_classes="nb-slot")

    def drawn(self) -> list[Any]:
        """What a tick may change."""
        written = [self.noted, self.name, self.tags, self.note]
        buttons = [self.stop, self.end_now, self.chat, self.export, self.train_further, self.resume, self.sooner]
        buttons += [self.later, self.delete]
        picks = [self.picks, self.compare, self.compared, self.comparison]
        places = [self.table, self.patch, self.tools, self.pane, self.sure, self.longer, self.message]
        return [*self.view.components(), *places, *buttons, *picks, *written, self.to_train, self.recipe, self.log]
