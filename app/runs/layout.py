"""What stands on the Runs tab: the table, the comparison, and the run that is open."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.run_view.layout import RunView, build_body, build_head
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


@dataclass(frozen=True)
class RunsLayout:
    """The components of the tab that events touch. `opened` holds the id of the run below the table."""

    search: gr.Textbox
    state: gr.Dropdown
    tools: gr.Row
    table: gr.HTML
    patch: gr.HTML
    to_train: gr.Button
    asked: gr.State
    picks: gr.Row
    compare: gr.Button
    unpick: gr.Button
    compared: gr.Column
    along: gr.Radio
    close: gr.Button
    comparison: gr.HTML
    opened: gr.State
    pane: gr.Column
    view: RunView
    stop: gr.Button
    end_now: gr.Button
    chat: gr.Button
    export: gr.Button
    train_further: gr.Button
    resume: gr.Button
    reuse: gr.Button
    sooner: gr.Button
    later: gr.Button
    delete: gr.Button
    longer: gr.Group
    epochs: gr.Number
    steps: gr.Number
    rate: gr.Number
    go_on: gr.Button
    not_now: gr.Button
    sure: gr.Row
    question: gr.HTML
    delete_now: gr.Button
    keep: gr.Button
    message: gr.HTML
    noted: gr.HTML
    name: gr.Textbox
    tags: gr.Textbox
    note: gr.Textbox
    save: gr.Button
    recipe: gr.HTML
    log: gr.HTML

    def drawn(self) -> list[Any]:
        """What a tick may change."""
        written = [self.noted, self.name, self.tags, self.note]
        buttons = [self.stop, self.end_now, self.chat, self.export, self.train_further, self.resume, self.sooner]
        buttons += [self.later, self.delete]
        picks = [self.picks, self.compare, self.compared, self.comparison]
        places = [self.table, self.patch, self.tools, self.pane, self.sure, self.longer, self.message]
        return [*self.view.components(), *places, *buttons, *picks, *written, self.to_train, self.recipe, self.log]


def build() -> RunsLayout:
    """Lay the tab out."""
    parts: dict[str, Any] = {"asked": gr.State(TableView()), "opened": gr.State("")}
    parts |= _build_list()
    with gr.Column(visible=False, elem_classes="nb-opened") as parts["pane"]:
        head = build_head()
        parts["noted"] = gr.HTML(elem_classes="nb-slot")
        parts |= _build_actions()
        with gr.Accordion("Name, tags and note", open=False):
            with gr.Row(elem_classes="nb-fields"):
                parts["name"] = gr.Textbox(label="Name", max_length=80, max_lines=1, info="The run's name.")
                parts["tags"] = gr.Textbox(
                    label="Tags",
                    max_lines=1,
                    max_length=200,
                    info="Separated by commas. Searchable.",
                )
            parts["note"] = gr.Textbox(label="Note", lines=2, max_length=4000, info="Anything worth remembering.")
            parts["save"] = gr.Button("Save", elem_classes="nb-narrow")
        parts["view"] = build_body(head)
        with gr.Accordion("Last log lines", open=False):
            parts["log"] = gr.HTML(elem_classes="nb-slot")
        parts["recipe"] = gr.HTML(elem_classes="nb-slot nb-papers")
    return RunsLayout(**parts)


def _build_list() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(visible=False, elem_classes="nb-tools") as parts["tools"]:
        parts["search"] = gr.Textbox(
            label="Search", placeholder="Search name, base model, dataset or tags", max_lines=1, scale=3, min_width=240
        )
        parts["state"] = gr.Dropdown(STATES, value="", label="State", scale=1, min_width=150)
    parts["table"] = gr.HTML(elem_classes="nb-slot", js_on_load=ACT)
    parts["patch"] = gr.HTML(elem_classes="nb-slot nb-patch", js_on_load=PATCH)
    parts["to_train"] = gr.Button(
        "Train your first adapter", variant="primary", visible=False, elem_classes="nb-narrow"
    )
    with gr.Row(visible=False, elem_classes="nb-actions") as parts["picks"]:
        parts["compare"] = gr.Button("Compare", variant="primary")
        parts["unpick"] = gr.Button("Clear selection")
    with gr.Column(visible=False, elem_classes="nb-comparison") as parts["compared"]:
        with gr.Row(elem_classes="nb-actions nb-along"):
            parts["along"] = gr.Radio(ACROSS, value="step", label="X axis", container=False)
            parts["close"] = gr.Button("Close comparison")
        parts["comparison"] = gr.HTML(elem_classes="nb-slot")
    return parts


def _build_actions() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="nb-actions"):
        parts["stop"] = gr.Button("Stop", variant="stop", visible=False)
        parts["end_now"] = gr.Button("Force stop", variant="stop", visible=False)
        parts["chat"] = gr.Button("Chat with it", variant="primary", visible=False)
        parts["export"] = gr.Button("Export", visible=False)
        parts["train_further"] = gr.Button("Continue training", visible=False)
        parts["resume"] = gr.Button("Resume", visible=False)
        parts["reuse"] = gr.Button("Use these settings")
        parts["sooner"] = gr.Button("Move up", visible=False)
        parts["later"] = gr.Button("Move down", visible=False)
        parts["delete"] = gr.Button("Delete…", variant="stop", visible=False)
    with gr.Group(visible=False, elem_classes="nb-part nb-longer") as parts["longer"]:
        gr.HTML(
            "<p>Resumes from the last complete checkpoint, exactly as if the run had never stopped. For a finished "
            "run, set more epochs or steps."
            "</p>",
            elem_classes="nb-slot",
        )
        with gr.Row(elem_classes="nb-fields"):
            parts["epochs"] = gr.Number(label="Epochs", info="In total, including the epochs already done.")
            parts["steps"] = gr.Number(label="Max steps", precision=0, info="In total. Overrides the epochs.")
            parts["rate"] = gr.Number(label="Learning rate", info="From the checkpoint on.")
        with gr.Row(elem_classes="nb-actions"):
            parts["go_on"] = gr.Button("Resume", variant="primary")
            parts["not_now"] = gr.Button("Cancel")
    with gr.Row(visible=False, elem_classes="nb-actions nb-sure") as parts["sure"]:
        parts["question"] = gr.HTML(elem_classes="nb-slot")
        parts["delete_now"] = gr.Button("Delete", variant="stop")
        parts["keep"] = gr.Button("Cancel")
    parts["message"] = gr.HTML(elem_classes="nb-slot")
    return parts
