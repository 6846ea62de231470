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
from core.export.formats.registry import FORMATS, format_named
from core.export.shared.destination import refuse_place
from core.export.shared.options import SETTINGS, ExportOptions, ExportSetting
from core.export.shared.source import export_name, parts_of
from core.runs.find import find_run, list_runs
from core.runs.store import Run

Updates = dict[Any, Any]
EMPTY = "An adapter that you have trained goes out from here, for other programs. Train one first."
PARTS = "As it was at the end, at the evaluation with the lowest held-out loss, or at a checkpoint."


@dataclass(frozen=True)
class ExportTab:
    """The components of the tab that events touch; `settings` by the field of ExportOptions."""

    empty: gr.HTML
    run: gr.Dropdown
    part: gr.Dropdown
    to: gr.Radio
    gets: gr.HTML
    settings: dict[str, gr.Radio | gr.Dropdown | gr.Checkbox]
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
        return {self.run, self.part, self.to, *self.settings.values(), self.out}

    def choices(self) -> list[Component]:
        """What changes with the run and the format."""
        return [self.part, self.gets, *self.settings.values(), *self.llama_cpp.all(), self.out]

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
                to = gr.Radio([(each.title, each.name) for each in FORMATS], value=FORMATS[0].name, label="As")
                gets = gr.HTML(elem_classes="nb-slot")
            with gr.Group(elem_classes="nb-part"):
                settings = {each.field: _component(each) for each in SETTINGS}
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
    return ExportTab(empty, run, part, to, gets, settings, llama_cpp, out, *shown)


def _component(setting: ExportSetting) -> gr.Radio | gr.Dropdown | gr.Checkbox:
    if not setting.choices:
        return gr.Checkbox(False, label=setting.label, info=setting.info)
    choices = [(label, value) for value, label in setting.choices.items()]
    kind = gr.Radio if len(choices) == 2 else gr.Dropdown
    return kind(choices, value=choices[0][1], label=setting.label, info=setting.info)


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
    gr.on(
        [each.input for each in tab.settings.values()],
        partial(events.chosen, False),
        tab.inputs(),
        tab.choices(),
        **quiet,
    )
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
            jobs.start(workspace, run.id, _options(tab, given, out, given[tab.part] or ""))
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
    to, apart = format_named(given[tab.to]), bool(given[tab.settings["adapter_only"]])
    offered = [(told.capitalize(), part) for told, part in parts_of(run)] if run is not None else []
    parts = [part for _, part in offered]
    chosen_part = given[tab.part] if given[tab.part] in parts else next(iter(parts), None)
    out = context.workspace.exports / f"{export_name(run, chosen_part or '')}-{to.name}" if run is not None else Path()
    options = _options(tab, given, out, chosen_part or "")
    updates: Updates = {
        tab.part: gr.Dropdown(choices=offered, value=chosen_part, visible=len(offered) > 1),
        tab.gets: export_html.about(run, options),
        **{tab.settings[each.field]: gr.update(visible=to.takes(each.field, apart)) for each in SETTINGS},
        **export_llama_cpp.shown(tab.llama_cpp, context, to.needs_llama_cpp),
    }
    if renamed and run is not None:
        updates[tab.out] = str(_free(out))
    return updates


def _options(tab: ExportTab, given: dict[Component, Any], out: Path, part: str) -> ExportOptions:
    """What is asked for; a setting that the format does not obey is left as it is usually."""
    to = format_named(given[tab.to])
    apart = bool(given[tab.settings["adapter_only"]])
    values = {name: given[component] for name, component in tab.settings.items() if to.takes(name, apart)}
    return ExportOptions(to.name, out, part=part, **values)


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
    given: dict[Component, Any] = {tab.part: None, tab.to: FORMATS[0].name}
    given |= {component: component.value for component in tab.settings.values()}
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
