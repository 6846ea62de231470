"""What happens on a press of the Export tab, and what it shows."""

from pathlib import Path

import gradio as gr

from app.context import Context
from app.export import html as export_html
from app.export import hub_and_import
from app.export import llama_cpp as export_llama_cpp
from app.export.layout import ExportLayout
from app.export.session import ExportSession
from app.ui import html as ui_html
from app.ui import menus
from app.ui.html import date
from app.ui.updates import Given, Seen, Updates, is_new
from core.errors import NibbleError, RunError
from core.export import jobs
from core.export.formats.registry import FORMATS, format_named
from core.export.shared.destination import refuse_place
from core.export.shared.options import ExportOptions
from core.export.shared.source import export_name, parts_of
from core.runs.find import find_run, list_runs
from core.runs.store import Run

EMPTY = "Here you export a trained adapter for other programs. Train one first."


class ExportEvents:
    """What happens on a press."""

    def __init__(self, layout: ExportLayout, context: Context, session: ExportSession) -> None:
        self.layout, self.context, self.session = layout, context, session

    def chosen(self, renamed: bool, given: Given) -> Updates:
        """What one gets of the run in this format; `renamed` proposes the folder anew."""
        return self.about(_run(self.context, given[self.layout.run]), given, renamed)

    def make(self, given: Given) -> Updates:
        """Start the export, or say why not."""
        layout, workspace = self.layout, self.context.workspace
        try:
            run = _run(self.context, given[layout.run])
            if run is None:
                raise RunError("Choose a run to export first.")
            out = self.context.reach.write(given[layout.out] or "", "The export's folder", workspace.exports)
            refuse_place(out)
            jobs.start(workspace, run.id, self._options(given, out, given[layout.part] or ""))
        except (NibbleError, OSError, ValueError) as error:
            return {layout.message: ui_html.error_box(str(error))}
        return {layout.message: "", **self.tick({})}

    def stop(self) -> Updates:
        """End the export that is at work."""
        shown = jobs.newest(self.context.workspace)
        if shown is not None:
            jobs.stop(shown)
        return {self.layout.message: ui_html.note_box("Stopping…")}

    def about(self, run: Run | None, given: Given, renamed: bool) -> Updates:
        """The settings that count for the format, and what it gives."""
        layout = self.layout
        to, adapter_only = format_named(given[layout.to]), bool(given[layout.settings["adapter_only"]])
        offered = [(name.capitalize(), part) for name, part in parts_of(run)] if run is not None else []
        parts = [part for _, part in offered]
        chosen_part = given[layout.part] if given[layout.part] in parts else next(iter(parts), None)
        name = export_name(run, chosen_part or "") if run is not None else ""
        out = self.context.workspace.exports / f"{name}-{to.name}"
        updates: Updates = {
            layout.part: gr.Dropdown(choices=offered, value=chosen_part, visible=len(offered) > 1),
            layout.gets: export_html.about(run, self._options(given, out, chosen_part or "")),
            **{
                component: gr.update(visible=to.takes(field, adapter_only))
                for field, component in layout.settings.items()
            },
            **export_llama_cpp.shown(layout.llama_cpp, self.context, self.session.llama_cpp, to.needs_llama_cpp),
        }
        if renamed and run is not None:
            updates[layout.out] = str(_free(out))
        return updates

    def _options(self, given: Given, out: Path, part: str) -> ExportOptions:
        """What is asked for; a setting that the format does not take is left at its default."""
        to, settings = format_named(given[self.layout.to]), self.layout.settings
        adapter_only = bool(given[settings["adapter_only"]])
        values = {field: given[each] for field, each in settings.items() if to.takes(field, adapter_only)}
        return ExportOptions(to.name, out, part=part, **values)

    def fill(self, run_id: str | None = None) -> Updates:
        """The runs that can be exported, and what one gets; `run_id` is chosen, else the newest."""
        layout = self.layout
        runs = [run for run in list_runs(self.context.workspace) if parts_of(run)]
        offered = [(f"{run.name} · {date(run.created)}", run.id) for run in runs]
        values = [value for _, value in offered]
        value = run_id if run_id in values else next(iter(values), None)
        given: Given = {layout.part: None, layout.to: FORMATS[0].name}
        given |= {component: component.value for component in layout.settings.values()}
        return {
            layout.empty: "" if offered else ui_html.empty("Nothing to export yet", EMPTY),
            layout.run: gr.Dropdown(choices=offered, value=value),
            **self.about(_run(self.context, value), given, renamed=True),
            layout.taking.base: gr.Dropdown(choices=menus.models(self.context.workspace)),
        }

    def tick(self, seen: Seen) -> Updates:
        """What changed since this browser last saw it."""
        layout, mark = self.layout, jobs.folder(self.context.workspace).stat().st_mtime_ns
        if seen.get("mark") == mark and not seen.get("working"):
            return self._beside(seen)
        seen["mark"] = mark
        shown = jobs.newest(self.context.workspace)
        working = shown is not None and shown.read()["state"] == "working"
        updates: Updates = {}
        for name, component, html in (
            ("state", layout.state, export_html.state(shown, self.context.shared_files)),
            ("earlier", layout.earlier, export_html.earlier(jobs.jobs(self.context.workspace), shown)),
        ):
            if is_new(seen, name, html):
                updates[component] = html
        was_working = seen.get("working")
        if was_working != working:
            seen["working"] = working
            updates |= {layout.stop: gr.Button(visible=working), layout.make: gr.Button(interactive=not working)}
            updates |= {layout.message: ""} if was_working else {}  # "Stopping…" is over
        return updates | self._beside(seen)

    def _beside(self, seen: Seen) -> Updates:
        layout, session = self.layout, self.session
        updates = export_llama_cpp.tick(layout.llama_cpp, self.context, session.llama_cpp, seen)
        return updates | hub_and_import.tick(layout.upload, session.uploads, seen)


def _run(context: Context, run_id: str | None) -> Run | None:
    try:
        return find_run(context.workspace, run_id) if run_id else None
    except RunError:
        return None


def _free(folder: Path) -> Path:
    """`folder`, with a number where something of that name is there."""
    number, free = 1, folder
    while free.exists() or free.with_name(f"{free.name}.zip").exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
