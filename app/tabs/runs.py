"""Runs: every training, which was best, each one opened again, and several laid over each other."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app import compare_html, pieces, runs_html
from app.context import Context
from app.run_view import RunView, build_body, build_head
from app.runs_events import RunsEvents, opened_run
from app.runs_html import MOST_PICKED, STATES, Asked, Table
from core.runs.pulse import hanging, stopping
from core.runs.queue import order
from core.runs.store import ENDED, OPEN, Run
from core.train.manifest import named_checkpoints

Updates = dict[Any, Any]
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
watch("value", () => {
  for (const fresh of element.querySelectorAll("tr[data-run]")) {
    const row = document.querySelector(`.nb-runs tr[data-run="${CSS.escape(fresh.dataset.run)}"]`);
    if (!row) continue;
    row.className = fresh.className;
    [...fresh.cells].forEach((cell, at) => {
      if (row.cells[at].innerHTML !== cell.innerHTML) row.cells[at].innerHTML = cell.innerHTML;
    });
  }
});
"""
COME_INTO_SIGHT = """
() => requestAnimationFrame(() => setTimeout(() =>
  document.querySelector(".nb-opened")?.scrollIntoView({ behavior: "smooth", block: "start" }), 150))
"""


@dataclass(frozen=True)
class RunsTab:
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
    said: gr.HTML
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
        buttons = [self.stop, self.end_now, self.chat, self.resume, self.sooner, self.later, self.delete, self.to_train]
        picks = [self.picks, self.compare, self.compared, self.comparison]
        places = [self.table, self.patch, self.tools, self.pane, self.sure, self.longer, self.said]
        return [*self.view.components(), *places, *buttons, *picks, *written, self.recipe, self.log]


def build() -> RunsTab:
    """Lay the tab out."""
    parts: dict[str, Any] = {"asked": gr.State(Asked()), "opened": gr.State("")}
    parts |= _build_list()
    with gr.Column(visible=False, elem_classes="nb-opened") as parts["pane"]:
        head = build_head()
        parts["noted"] = gr.HTML(elem_classes="nb-slot")
        parts |= _build_actions()
        with gr.Accordion("Name, tags and note", open=False):
            with gr.Row(elem_classes="nb-fields"):
                parts["name"] = gr.Textbox(label="Name", max_length=80, max_lines=1, info="What the run is called.")
                parts["tags"] = gr.Textbox(
                    label="Tags",
                    max_lines=1,
                    max_length=200,
                    info="Commas between them. They can be searched.",
                )
            parts["note"] = gr.Textbox(label="Note", lines=2, max_length=4000, info="Whatever is worth remembering.")
            parts["save"] = gr.Button("Save", elem_classes="nb-narrow")
        parts["view"] = build_body(head)
        with gr.Accordion("The log's last lines", open=False):
            parts["log"] = gr.HTML(elem_classes="nb-slot")
        parts["recipe"] = gr.HTML(elem_classes="nb-slot nb-papers")
    return RunsTab(**parts)


def _build_list() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(visible=False, elem_classes="nb-tools") as parts["tools"]:
        parts["search"] = gr.Textbox(
            label="Find", placeholder="Words in name, base model, data or tags", max_lines=1, scale=3, min_width=240
        )
        parts["state"] = gr.Dropdown(STATES, value="", label="State", scale=1, min_width=150)
    parts["table"] = gr.HTML(elem_classes="nb-slot", js_on_load=ACT)
    parts["patch"] = gr.HTML(elem_classes="nb-slot nb-patch", js_on_load=PATCH)
    parts["to_train"] = gr.Button(
        "Train your first adapter", variant="primary", visible=False, elem_classes="nb-narrow"
    )
    with gr.Row(visible=False, elem_classes="nb-actions") as parts["picks"]:
        parts["compare"] = gr.Button("Compare", variant="primary")
        parts["unpick"] = gr.Button("Pick none")
    with gr.Column(visible=False, elem_classes="nb-comparison") as parts["compared"]:
        with gr.Row(elem_classes="nb-actions nb-along"):
            parts["along"] = gr.Radio(ACROSS, value="step", label="Across", container=False)
            parts["close"] = gr.Button("Close the comparison")
        parts["comparison"] = gr.HTML(elem_classes="nb-slot")
    return parts


def _build_actions() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="nb-actions"):
        parts["stop"] = gr.Button("Stop", variant="stop", visible=False)
        parts["end_now"] = gr.Button("End it now", variant="stop", visible=False)
        parts["chat"] = gr.Button("Chat with it", variant="primary", visible=False)
        parts["resume"] = gr.Button("Resume…", visible=False)
        parts["reuse"] = gr.Button("Use these settings")
        parts["sooner"] = gr.Button("Sooner", visible=False)
        parts["later"] = gr.Button("Later", visible=False)
        parts["delete"] = gr.Button("Delete…", variant="stop", visible=False)
    with gr.Group(visible=False, elem_classes="nb-part nb-longer") as parts["longer"]:
        gr.HTML(
            "<p>It goes on from its last whole checkpoint, exactly as if it had never ended. "
            "For a run that is finished, ask for more.</p>",
            elem_classes="nb-slot",
        )
        with gr.Row(elem_classes="nb-fields"):
            parts["epochs"] = gr.Number(label="Epochs", info="In all, those before included.")
            parts["steps"] = gr.Number(label="Steps at most", precision=0, info="In all; it goes before the epochs.")
            parts["rate"] = gr.Number(label="Learning rate", info="From its checkpoint on.")
        with gr.Row(elem_classes="nb-actions"):
            parts["go_on"] = gr.Button("Go on training", variant="primary")
            parts["not_now"] = gr.Button("Not now")
    with gr.Row(visible=False, elem_classes="nb-actions nb-sure") as parts["sure"]:
        parts["question"] = gr.HTML(elem_classes="nb-slot")
        parts["delete_now"] = gr.Button("Delete for good", variant="stop")
        parts["keep"] = gr.Button("Keep it")
    parts["said"] = gr.HTML(elem_classes="nb-slot")
    return parts


def wire(tab: RunsTab, context: Context) -> None:
    """Attach the tab's events. Those that lead to other tabs are attached where both are known."""
    events = RunsEvents(tab, context)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # One after the other: each changes a part of what is asked, and none may undo another's.
    asking: dict[str, Any] = {**quiet, "outputs": tab.asked, "concurrency_id": "asked", "concurrency_limit": 1}
    pressed = {**asking, "outputs": [tab.asked, tab.opened], "trigger_mode": "multiple"}
    tab.table.click(events.press, [tab.asked, tab.opened], **pressed)
    found = [tab.search, tab.state, tab.asked]
    gr.on([tab.search.change, tab.state.change], events.find, found, trigger_mode="always_last", **asking)
    tab.compare.click(lambda asked: replace(asked, compared=asked.picked), tab.asked, **asking)
    tab.unpick.click(lambda asked: replace(asked, picked=()), tab.asked, **asking)
    tab.close.click(lambda asked: replace(asked, compared=()), tab.asked, **asking)
    tab.along.input(lambda along, asked: replace(asked, along=along), [tab.along, tab.asked], **asking)
    for button, answer in ((tab.go_on, "Looking at its last checkpoint…"), (tab.delete_now, "Deleting…")):
        button.click(None, None, tab.said, js=f"() => {json.dumps(pieces.busy(answer))}", **quiet)
    tab.stop.click(events.stop, tab.opened, tab.said, **quiet)
    tab.end_now.click(events.end_now, tab.opened, tab.said, trigger_mode="once", **quiet)
    tab.sooner.click(lambda opened: events.move(opened, -1), tab.opened, tab.said, **quiet)
    tab.later.click(lambda opened: events.move(opened, 1), tab.opened, tab.said, **quiet)
    terms = [tab.longer, tab.sure, tab.epochs, tab.steps, tab.rate, tab.said]
    tab.resume.click(events.ask_to_resume, tab.opened, terms, **quiet)
    tab.not_now.click(lambda: gr.Group(visible=False), None, tab.longer, queue=False, **quiet)
    wanted = [tab.opened, tab.epochs, tab.steps, tab.rate]
    tab.go_on.click(events.resume, wanted, [tab.said, tab.longer], trigger_mode="once", **quiet)
    tab.delete.click(events.ask_to_delete, tab.opened, [tab.sure, tab.longer, tab.question, tab.said], **quiet)
    tab.keep.click(lambda: gr.Row(visible=False), None, tab.sure, queue=False, **quiet)
    gone = [tab.said, tab.opened, tab.asked, tab.pane, tab.sure]
    asking["outputs"] = gone
    tab.delete_now.click(events.delete, [tab.opened, tab.asked], trigger_mode="once", **asking)
    written = [tab.opened, tab.name, tab.tags, tab.note]
    gr.on([tab.save.click, tab.name.submit, tab.tags.submit], events.label, written, tab.said, **quiet)


def tick(tab: RunsTab, context: Context, table: Table, opened: str, asked: Asked, seen: dict[str, Any]) -> Updates:
    """What changed on the Runs tab since this browser last saw it."""
    updates = _tick_table(tab, table, opened, asked, seen) | _tick_comparison(tab, context, table, asked, seen)
    run = opened_run(context, opened)
    if run is not None:
        return updates | _tick_run(tab, context, run, seen)
    if seen.pop("opened", None) is not None:  # deleted, here or elsewhere
        seen.pop("state")
        updates[tab.pane] = gr.Column(visible=False)
    return updates


def _tick_table(tab: RunsTab, table: Table, opened: str, asked: Asked, seen: dict[str, Any]) -> Updates:
    page = table.page(asked, opened)
    updates: Updates = {}
    before: dict[str, str] = seen.get("rows", {})
    if seen.get("layout") != page.layout:
        updates[tab.table] = page.html
        updates[tab.to_train] = gr.Button(visible=not page.runs)
        updates[tab.tools] = gr.Row(visible=bool(page.runs))
    elif changed := [html for run_id, html in page.rows.items() if before.get(run_id) != html]:
        seen["patches"] = seen.get("patches", 0) + 1
        updates[tab.patch] = f'<table data-patch="{seen["patches"]}">{"".join(changed)}</table>'
    seen["layout"], seen["rows"] = page.layout, page.rows
    if seen.get("picked") != asked.picked:
        seen["picked"] = asked.picked
        updates[tab.picks] = gr.Row(visible=bool(asked.picked))
        updates[tab.compare] = gr.Button(_compare_words(len(asked.picked)), interactive=len(asked.picked) > 1)
    return updates


def _compare_words(picked: int) -> str:
    if picked < 2:
        return "Pick another one to compare"
    return f"Compare {picked} runs{', the most at once' if picked == MOST_PICKED else ''}"


def _tick_comparison(tab: RunsTab, context: Context, table: Table, asked: Asked, seen: dict[str, Any]) -> Updates:
    rows = {row.run_id: row for row in table.index.rows(runs_html.FRESH_SECONDS)} if asked.compared else {}
    runs = [Run(context.workspace.runs / run_id) for run_id in asked.compared if run_id in rows]
    if len(runs) < 2:
        shown = seen.pop("comparison", None)
        return {} if shown is None else {tab.compared: gr.Column(visible=False)}
    mark, drawn = f"{asked.along} {[rows[run.id] for run in runs]}", seen.get("comparison", ("", ""))

    def draw(curves: list[Any]) -> str:
        each = zip(runs, curves, strict=True)
        return compare_html.compare([compare_html.Compared(run, rows[run.id], its) for run, its in each], asked.along)

    html, made_from = context.live.compare(runs, drawn[1] if drawn[0] == mark else "", draw)
    seen["comparison"] = (mark, made_from)
    return {tab.comparison: html, tab.compared: gr.Column(visible=True)} if html else {}


def _tick_run(tab: RunsTab, context: Context, run: Run, seen: dict[str, Any]) -> Updates:
    updates: Updates = tab.view.changes(context.live.parts(run), seen)
    state = run.status().state
    labels = run.labels()
    tags, note = [str(tag) for tag in labels.get("tags") or []], str(labels.get("note") or "")
    if seen.get("noted") != (tags, note):
        seen["noted"] = (tags, note)
        updates[tab.noted] = runs_html.noted(tags, note)
    if seen.get("opened") != run.id:  # what a person is writing is left alone from then on
        updates[tab.name], updates[tab.tags], updates[tab.note] = run.name, ", ".join(tags), note
    queue = [each.id for each in order(context.workspace)] if state == "queued" else []
    stops = stopping(run) is not None
    ends = stops or hanging(run) is not None
    mark = f"{run.id} {state} {queue} {stops} {ends}"
    if seen.get("state") != mark:
        updates |= _buttons(tab, run, state, queue)
        updates[tab.end_now] = gr.Button(visible=ends)
        if stops:
            updates[tab.stop] = gr.Button(visible=False)
        updates[tab.recipe] = runs_html.recipe(run)
    if seen.get("opened") != run.id or seen.get("state") != mark:
        updates[tab.sure], updates[tab.longer] = gr.Row(visible=False), gr.Group(visible=False)
    if seen.get("opened") != run.id:
        updates[tab.said] = ""
    seen["opened"], seen["state"] = run.id, mark
    if state in OPEN or "log" not in seen or seen["log"][0] != mark:
        log = (mark, runs_html.log(run))
        if seen.get("log") != log:
            seen["log"] = log
            updates[tab.log] = log[1]
    return updates


def _buttons(tab: RunsTab, run: Run, state: str, queue: list[str]) -> Updates:
    can_resume = state in ENDED and bool(named_checkpoints(run.dir / "checkpoints"))
    place = queue.index(run.id) if run.id in queue else None
    return {
        tab.pane: gr.Column(visible=True),
        tab.stop: gr.Button("Take out of the queue" if state == "queued" else "Stop", visible=state in OPEN),
        tab.chat: gr.Button(visible=run.has_adapter),
        tab.resume: gr.Button(visible=can_resume),
        tab.sooner: gr.Button(visible=bool(place)),
        tab.later: gr.Button(visible=place is not None and place < len(queue) - 1),
        tab.delete: gr.Button(visible=state in ENDED),
    }
