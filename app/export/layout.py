"""Export: a run for other programs, proved to answer there as it does here; and adapters from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.export import html as export_html
from app.export import hub_and_import
from app.export import llama_cpp as export_llama_cpp
from app.export.events import newest
from app.export.hub_and_import import More
from app.export.llama_cpp import LlamaCppPart
from app.ui import html as ui_html
from app.ui.html import date
from core.errors import NibbleError, RunError
from core.export import jobs
from core.export.destination import refuse_place
from core.export.options import ExportOptions
from core.export.source import export_name, parts_of
from core.runs.find import find_run, list_runs
from core.runs.store import Run

Updates = dict[Any, Any]
EMPTY = "An adapter that you have trained goes out from here, for other programs. Train one first."
PARTS = "As it was at the end, at the evaluation with the lowest held-out loss, or at a checkpoint."
ONTO = [
    ("The 4-bit weights it was trained over: answers as the chat does", "dequantised"),
    ("The base's original weights: finer, but not what it was trained on", "original"),
]
PRECISIONS = [("The base's own", "auto"), ("bfloat16", "bfloat16"), ("float16", "float16"), ("float32", "float32")]
TYPES = [("f16", "f16"), ("bf16", "bf16"), ("q8_0: half the size, a little coarser", "q8_0"), ("f32", "f32")]


@dataclass(frozen=True)
class ExportTab:
    """The components of the tab that events touch. `made` is the id of the export that is shown."""

    empty: gr.HTML
    run: gr.Dropdown
    part: gr.Dropdown
    to: gr.Radio
    gets: gr.HTML
    onto: gr.Radio
    precision: gr.Dropdown
    gguf_type: gr.Dropdown
    apart: gr.Checkbox
    llama_cpp: LlamaCppPart
    out: gr.Textbox
    make: gr.Button
    stop: gr.Button
    said: gr.HTML
    state: gr.HTML
    earlier: gr.HTML
    more: More

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: the callback gets one dict of values by component."""
        return {self.run, self.part, self.to, self.onto, self.precision, self.gguf_type, self.apart, self.out}

    def choices(self) -> list[Component]:
        """What changes with the run and the format."""
        kinds = [self.onto, self.precision, self.gguf_type, self.apart]
        return [self.part, self.gets, *kinds, *self.llama_cpp.all(), self.out]

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        beside = [*self.llama_cpp.ticking(), *self.more.ticking()]
        return [self.state, self.said, self.earlier, self.stop, self.make, *beside]

    def filled(self) -> list[Component]:
        """What is set whenever the tab is opened."""
        return [self.empty, self.run, self.more.base, *self.choices()]


def build() -> ExportTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="nb-form"):
        with gr.Column(scale=5, min_width=420):
            empty = gr.HTML(elem_classes="nb-slot nb-said")
            with gr.Group(elem_classes="nb-part"):
                run = gr.Dropdown(label="Run", choices=[], info="Those that have an adapter, newest first.")
                part = gr.Dropdown(label="Which of its adapters", choices=[], info=PARTS, visible=False)
                to = gr.Radio(
                    [(told.title, name) for name, told in export_html.FORMATS.items()], value="adapter", label="As"
                )
                gets = gr.HTML(elem_classes="nb-slot")
            with gr.Group(elem_classes="nb-part"):
                onto = gr.Radio(
                    ONTO, value="dequantised", label="Merged onto", info="It is never rounded to 4 bits a second time."
                )
                precision = gr.Dropdown(PRECISIONS, value="auto", label="Numbers", info="Of the merged weights.")
                gguf_type = gr.Dropdown(TYPES, value="f16", label="Tensors", info="How exactly the GGUF holds them.")
                apart = gr.Checkbox(
                    False, label="Base and adapter apart", info="The adapter as a GGUF of its own, for a base in GGUF."
                )
                llama_cpp = export_llama_cpp.build()
                out = gr.Textbox(label="Folder", info="On the machine that Nibble runs on. It must be empty or new.")
            with gr.Row(elem_classes="nb-actions"):
                make = gr.Button("Export", variant="primary")
                stop = gr.Button("Stop", variant="stop", visible=False)
            said = gr.HTML(elem_classes="nb-slot nb-said")
            taking = hub_and_import.build_import()
        with gr.Column(scale=6, min_width=420):
            state = gr.HTML(export_html.NOTHING, elem_classes="nb-slot")
            pushing = hub_and_import.build_push()
            earlier = gr.HTML(elem_classes="nb-slot")
    more = More(*pushing, *taking)
    shown = (make, stop, said, state, earlier, more)
    return ExportTab(empty, run, part, to, gets, onto, precision, gguf_type, apart, llama_cpp, out, *shown)


def wire(tab: ExportTab, context: Context) -> None:
    """Attach the tab's events."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    events = ExportEvents(tab, context)
    gr.on(
        [tab.run.input, tab.part.input, tab.to.input],
        partial(events.chosen, True),
        tab.inputs(),
        tab.choices(),
        **quiet,
    )
    kinds = [tab.precision.input, tab.gguf_type.input, tab.apart.input, tab.onto.input]
    gr.on(kinds, partial(events.chosen, False), tab.inputs(), tab.choices(), **quiet)
    tab.make.click(events.make, tab.inputs(), tab.ticking(), trigger_mode="once", **quiet)
    hub_and_import.wire(tab.more, context)
    export_llama_cpp.wire(tab.llama_cpp, context)
    tab.stop.click(events.stop, None, tab.ticking(), **quiet)


class ExportEvents:
    """What happens on a press."""

    def __init__(self, tab: ExportTab, context: Context) -> None:
        self.tab, self.context = tab, context

    def chosen(self, renamed: bool, given: dict[Component, Any]) -> Updates:
        """What one gets of the run in this format; `renamed` proposes the folder anew."""
        run = _run(self.context, given[self.tab.run])
        return chosen(self.tab, self.context, run, given, renamed)

    def make(self, given: dict[Component, Any]) -> Updates:
        """Start the export, or say why not."""
        tab, workspace = self.tab, self.context.workspace
        try:
            run = _run(self.context, given[tab.run])
            if run is None:
                raise RunError("Choose a run to export first.")
            out = self.context.reach.write(given[tab.out] or "", "The export's folder", workspace.exports)
            refuse_place(out)
            kinds = (given[tab.onto], given[tab.precision], given[tab.gguf_type], bool(given[tab.apart]))
            order = ExportOptions(given[tab.to], out, *kinds, given[tab.part] or "")
            jobs.start(workspace, run.id, order)
        except (NibbleError, OSError, ValueError) as error:
            return {tab.said: ui_html.error_box(str(error))}
        return {tab.said: "", **tick(tab, self.context, {})}

    def stop(self) -> Updates:
        """End the export that is at work."""
        shown = newest(self.context)
        if shown is not None:
            jobs.stop(shown)
        return {self.tab.said: ui_html.note_box("Stopping…")}


def _run(context: Context, run_id: str | None) -> Run | None:
    try:
        return find_run(context.workspace, run_id) if run_id else None
    except RunError:
        return None


def chosen(tab: ExportTab, context: Context, run: Run | None, given: dict[Component, Any], renamed: bool) -> Updates:
    """The settings that count for the format, and what it gives."""
    to, apart = given[tab.to], bool(given[tab.apart])
    in_gguf = to in ("gguf", "ollama")
    offered = [(told.capitalize(), part) for told, part in parts_of(run)] if run is not None else []
    parts = [part for _, part in offered]
    chosen_part = given[tab.part] if given[tab.part] in parts else next(iter(parts), None)
    part = chosen_part or ""
    updates: Updates = {
        tab.part: gr.Dropdown(choices=offered, value=chosen_part, visible=len(offered) > 1),
        tab.gets: export_html.about(run, part, to, given[tab.gguf_type], apart and in_gguf, given[tab.precision]),
        tab.onto: gr.Radio(visible=to == "merged" or (in_gguf and not apart)),
        tab.precision: gr.Dropdown(visible=to == "merged"),
        tab.gguf_type: gr.Dropdown(visible=in_gguf and not (apart and to == "gguf")),
        tab.apart: gr.Checkbox(visible=in_gguf),
        **export_llama_cpp.shown(tab.llama_cpp, context, in_gguf),
    }
    if renamed and run is not None:
        updates[tab.out] = str(_free(context.workspace.exports / f"{export_name(run, part)}-{to}"))
    return updates


def _free(folder: Path) -> Path:
    """`folder`, with a number where something of that name is there."""
    number, free = 1, folder
    while free.exists() or free.with_name(f"{free.name}.zip").exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def fill(tab: ExportTab, context: Context, run_id: str | None = None) -> Updates:
    """The runs that can be exported, and what one gets; `run_id` is chosen, else the newest."""
    runs = [run for run in list_runs(context.workspace) if parts_of(run)]
    offered = [(f"{run.name} · {date(run.created)}", run.id) for run in runs]
    values = [value for _, value in offered]
    value = run_id if run_id in values else next(iter(values), None)
    given: dict[Component, Any] = {tab.part: None, tab.to: "adapter", tab.apart: False}
    given |= {tab.gguf_type: "f16", tab.precision: "auto"}
    return {
        tab.empty: "" if offered else ui_html.empty("Nothing to export yet", EMPTY),
        tab.run: gr.Dropdown(choices=offered, value=value),
        **chosen(tab, context, _run(context, value), given, renamed=True),
        **hub_and_import.fill(tab.more, context),
    }


def tick(tab: ExportTab, context: Context, seen: dict[str, Any]) -> Updates:
    """What changed since this browser last saw it."""
    mark = jobs.folder(context.workspace).stat().st_mtime_ns
    if seen.get("mark") == mark and not seen.get("working"):
        return _beside(tab, context, seen)
    seen["mark"] = mark
    shown = newest(context)
    working = shown is not None and shown.read()["state"] == "working"
    updates: Updates = {}
    for name, component, html in (
        ("state", tab.state, export_html.state(shown, context.shelf)),
        ("earlier", tab.earlier, export_html.earlier(jobs.jobs(context.workspace), shown)),
    ):
        if seen.get(name) != html:
            seen[name] = html
            updates[component] = html
    was_working = seen.get("working")
    if was_working != working:
        seen["working"] = working
        updates |= {tab.stop: gr.Button(visible=working), tab.make: gr.Button(interactive=not working)}
        updates |= {tab.said: ""} if was_working else {}  # "Stopping…" is over
    return updates | _beside(tab, context, seen)


def _beside(tab: ExportTab, context: Context, seen: dict[str, Any]) -> Updates:
    return {**export_llama_cpp.tick(tab.llama_cpp, context, seen), **hub_and_import.tick(tab.more, context, seen)}
