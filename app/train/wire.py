"""The Train tab: what to train on the left, what will be trained on and how it goes on the right."""

import math
from typing import Any

import gradio as gr

from app.context import Context
from app.data.session import DataSession
from app.train import layout as train_layout
from app.train import tick
from app.train.download import DownloadSession
from app.train.events import TrainEvents
from app.train.form import SMALLEST_BUDGET
from app.train.plan_events import PlanEvents
from app.train.plan_session import PlanSession
from app.train.session import TrainSession, shown_run
from app.ui import menus
from app.ui.form import AS_RECOGNISED, DEFAULTS, FIELDS, Form
from app.ui.tab import PageParts, Tab
from app.ui.updates import LATEST, ONCE, QUIET, Seen, Updates, say_at_once
from core.runs.store import OPEN
from core.sizes import GIB
from core.system.hardware import device
from core.workspace import read_json

# A change of one of CHECKED_BY has the data and the model checked again; these decide nothing of that.
UNCHECKED = {"data.eval_max_rows", "lora.alpha", "lora.dropout", "lora.scaling"}
CHECKED_BY = (
    *("model", "budget", "data.path", "data.mapping"),
    *(key for key in FIELDS if key.startswith(("data.", "lora.", "quantization.")) and key not in UNCHECKED),
    *("train.epochs", "train.max_steps", "train.effective_batch", "train.optimizer", "train.weight_decay"),
)


class TrainTab(Tab):
    """The tab, and what the server remembers for it. `data` is the session of the Data tab."""

    name, title = "train", "Train"
    layout: train_layout.TrainLayout
    events: TrainEvents

    def __init__(self, context: Context, data: DataSession) -> None:
        self.context = context
        self.session = TrainSession(data, PlanSession(data.beside, device().total_bytes), DownloadSession())

    @property
    def form(self) -> Form:
        """The settings on the screen."""
        return self.layout.form.form

    def build(self) -> None:
        """Lay the tab out. Nothing is looked up here: the page fills itself when it is opened."""
        self.layout = train_layout.TrainLayout()
        self.filled = [*self.form.inputs(), self.layout.form.preset, self.layout.welcome, self.layout.side]
        self.filled_later = [self.form.fields["lora.start_from"]]
        self.outputs, self.shared = tick.outputs(self.layout), tick.shared(self.layout)
        self.events = TrainEvents(self.layout, self.context, self.session)

    def wire(self, page: PageParts) -> None:
        """Attach the events. Those that lead to other tabs are attached where both are known."""
        self._wire_form()
        self._wire_check()
        self._wire_run()

    def _wire_form(self) -> None:
        layout, events, parts, fields = self.layout, self.events, self.layout.form, self.form.fields
        form = self.form.inputs()
        started = [parts.message, layout.side, layout.welcome, *form]
        for button, start, given in ((parts.start, events.start, form), (layout.try_it, events.try_it, None)):
            say_at_once(button.click, parts.message, "Starting…")
            button.click(start, given, started, **ONCE)
        as_read = [fields[key] for key in AS_RECOGNISED]
        kept = [fields["data.path"], *as_read, parts.upload, parts.message]
        parts.upload.upload(events.keep, parts.upload, kept, **QUIET)
        fields["data.path"].input(events.read_anew, None, as_read, queue=False, **QUIET)
        start_from = fields["lora.start_from"]
        start_from.input(events.begin_from, start_from, [*form, parts.message], **QUIET)
        parts.preset.input(events.fill_from, parts.preset, [*form, parts.about, parts.message], **QUIET)
        typed = [component.input for component in fields.values() if not isinstance(component, gr.State)]
        gr.on(typed, events.remember, form, None, **LATEST)
        parts.download.button.click(events.download, None, parts.download.all(), queue=False, **QUIET)

    def _wire_check(self) -> None:
        layout, events, preview, fields = self.layout, self.events, self.layout.preview, self.form.fields
        form, row, consent = self.form.inputs(), preview.pager.row, preview.consent
        looked_at = [*(fields[key].change for key in CHECKED_BY), layout.read.change]
        gr.on(looked_at, events.look, form | {row}, [preview.check, preview.row, *consent.all()], **LATEST)
        consent.agree.click(events.agree, None, [preview.check, layout.read, *consent.all()], **ONCE)
        preview.pager.wire()
        row.change(events.turn, form | {row}, [preview.row, row, preview.check], **LATEST)
        planning = PlanEvents(self.form, layout.form.message, self.context, self.session.plans)
        planned = [*(component.change for component in fields.values()), layout.read.change]
        gr.on(planned, planning.look, form, layout.plan, **LATEST)
        layout.plan.click(planning.use, None, [*form, layout.form.message], **QUIET)

    def _wire_run(self) -> None:
        layout, events, run, message = self.layout, self.events, self.layout.run, self.layout.form.message
        say_at_once(run.stop.click, message, "Stopping…")
        say_at_once(run.end_now.click, message, "Stopping now…")
        say_at_once(run.resume.click, message, "Starting…")
        run.stop.click(events.stop, None, [message, run.stop], queue=False, **QUIET)
        run.end_now.click(events.end_now, None, message, **ONCE)
        run.resume.click(events.resume, None, message, **ONCE)
        run.again.click(lambda: gr.Tabs(selected="check"), None, layout.side, queue=False, **QUIET)

    def fill(self) -> Updates:
        """Everything that the page looks up when it is opened: menus, the device's size, the last settings."""
        form, workspace, run = self.form, self.context.workspace, shown_run(self.context)
        choices = {"model": menus.models(workspace), "data.path": menus.datasets(workspace)}
        # The settings are read last: a file that was dropped meanwhile is in them already.
        # All of them are sent: a number that is empty from the start would be shown as 0.
        kept = {**DEFAULTS, **(read_json(self.context.form_file) or {})}
        updates: Updates = form.updates(kept)
        for key, offered in choices.items():
            component = form.fields[key]
            updates[component] = gr.Dropdown(choices=offered, value=updates.get(component, component.value))
        updates[form.fields["budget"]] = _budget_slider(updates.get(form.fields["budget"]))
        updates[self.layout.form.preset] = gr.Dropdown(choices=menus.recipes())
        updates[self.layout.welcome] = gr.Group(visible=run is None)
        if run is not None and run.status().state in OPEN:  # else it is left where the person may have put it by now
            updates[self.layout.side] = gr.Tabs(selected="run")
        return updates

    def fill_later(self) -> Updates:
        """The adapters that can be trained further; with many runs they take a while to be found."""
        return {self.form.fields["lora.start_from"]: gr.Dropdown(choices=menus.starts(self.context.workspace))}

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """What changed since this browser last saw it."""
        return tick.tick(self.layout, self.context, self.session, seen)

    def parts(self) -> dict[str, str]:
        """The HTML of those as it is now."""
        return tick.parts(self.context, self.session)


def _budget_slider(wanted: Any) -> gr.Slider:
    """The budget's slider as long as the device's memory; where nothing is `wanted`, at what is free now."""
    found = device()
    total, free = found.total_bytes / GIB, found.free_bytes / GIB
    where = "machine" if found.kind == "cpu" else "card"
    share = f"In GiB, of {total:.1f} on this {where}. Marked below: what the plan needs, and how many are free now."
    most = math.floor(total * 10) / 10
    amount = min(wanted if isinstance(wanted, (int, float)) else free, most)
    return gr.Slider(value=max(round(amount, 2), SMALLEST_BUDGET), maximum=most, info=share)
