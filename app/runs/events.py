"""What happens on a press on the Runs tab."""

from collections.abc import Callable
from dataclasses import replace

import gradio as gr

from app.context import Context
from app.runs.layout import RunsLayout
from app.runs.table_html import TableView
from app.server.event_validation import pressed
from app.ui import html
from app.ui.form import explain
from app.ui.updates import Updates
from core.errors import NibbleError, RunError
from core.runs.delete import is_run, remove, what_is_lost
from core.runs.find import find_run
from core.runs.index import index_of
from core.runs.queue import move
from core.runs.resume import resume
from core.runs.store import ENDED, Run

MOST_TAGS = 12
# The fields of a resume and what they set, in their order on the screen.
MAY_ASK = ("train.epochs", "train.max_steps", "train.learning_rate")


def opened_run(context: Context, opened: str) -> Run | None:
    """The run that is open, None where there is none or its folder has gone."""
    return Run(context.workspace.runs / opened) if is_run(context.workspace, opened) else None


class RunsEvents:
    """Each method parses, calls the engine once, and renders."""

    def __init__(self, layout: RunsLayout, context: Context) -> None:
        self.layout, self.context = layout, context

    def press(self, asked: TableView, opened: str, event: gr.EventData) -> tuple[TableView, str]:
        """A press in the table: open a run, sort, turn the page, pick."""
        act, value = pressed(event, "act"), pressed(event, "value")
        if act == "pick" and not is_run(self.context.workspace, value):
            return asked, opened
        if act == "open" and is_run(self.context.workspace, value):
            index_of(self.context.workspace).look_again(value)
            return asked, value
        return asked.press(act, value), opened

    def find(self, words: str, state: str, asked: TableView) -> TableView:
        """Only the runs with these words and in this state."""
        return replace(asked, words=words or "", state=state or "", page=1)

    def stop(self, opened: str) -> str:
        """Ask the run to stop, or take it out of the queue."""
        return self._say(opened, self.context.supervisor.stop)

    def end_now(self, opened: str) -> str:
        """End a run without waiting for it."""
        return self._say(opened, self.context.supervisor.kill)

    def _say(self, opened: str, act: Callable[[Run], str]) -> str:
        """What `act` says of the run, or why it cannot be done, as HTML."""
        try:
            return html.note_box(act(find_run(self.context.workspace, opened)))
        except NibbleError as error:
            return explain(error)

    def move(self, opened: str, places: int) -> str:
        """Let a run that waits start sooner or later."""
        try:
            move(self.context.workspace, opened, places)
        except NibbleError as error:
            return explain(error)
        return ""

    def label(self, opened: str, name: str, tags: str, note: str) -> str:
        """Keep what the person has written on the run."""
        run = opened_run(self.context, opened)
        if run is None:
            return html.error_box("This run no longer exists: it was deleted elsewhere.")
        words = list(dict.fromkeys(word.strip() for word in tags.split(",") if word.strip()))
        if len(words) > MOST_TAGS:
            return html.error_box(f"{len(words)} tags are too many; the limit is {MOST_TAGS}.")
        try:
            run.write_labels(name.strip(), note.strip(), words)
        except OSError as error:
            return html.error_box(f"Could not save: {error.strerror or error}. Free some disk space and try again.")
        return html.note_box("Saved.")

    def ask_to_resume(self, opened: str) -> Updates:
        """Show how the run would go on: with the settings that it has."""
        layout, run = self.layout, opened_run(self.context, opened)
        try:
            rules = run.recipe().train if run is not None else None
        except NibbleError as error:
            return {layout.message: explain(error)}
        if rules is None:
            return {layout.message: html.error_box("This run no longer exists: it was deleted elsewhere.")}
        return {
            layout.longer: gr.Group(visible=True),
            layout.sure: gr.Row(visible=False),
            layout.epochs: gr.Number(rules.epochs),
            layout.steps: gr.Number(rules.max_steps),
            layout.rate: gr.Number(rules.learning_rate),
            layout.message: "",
        }

    def resume(self, opened: str, epochs: float | None, steps: float | None, rate: float | None) -> Updates:
        """Put the run back into the queue, to go on from its last checkpoint."""
        layout = self.layout
        try:
            run = find_run(self.context.workspace, opened)
            rules = run.recipe().train
            had = (rules.epochs, rules.max_steps, rules.learning_rate)
            pairs = zip(MAY_ASK, (epochs, steps, rate), had, strict=True)
            changed = [f"{key}={'null' if new is None else f'{new:.12g}'}" for key, new, old in pairs if new != old]
            resume(run, self.context.supervisor, changed)
        except Exception as error:  # whatever it is, the person is looking here
            return {layout.message: explain(_in_the_app(error, opened))}
        waits = run.status().state == "queued"
        message = "Added to the queue." if waits else "Resuming from the last checkpoint."
        return {layout.message: html.note_box(message), layout.longer: gr.Group(visible=False)}

    def ask_to_delete(self, opened: str) -> Updates:
        """Ask, and say what it frees and what is lost."""
        layout, run = self.layout, opened_run(self.context, opened)
        if run is None or run.status().state not in ENDED:
            return {layout.message: html.error_box("Only a run that has ended can be deleted. Stop it first.")}
        question = f"Delete “{html.text(run.name)}” for good? {what_is_lost(run)}"
        return {
            layout.sure: gr.Row(visible=True),
            layout.longer: gr.Group(visible=False),
            layout.question: question,
            layout.message: "",
        }

    def delete(self, opened: str, asked: TableView) -> Updates:
        """Delete the run; it leaves the comparison too."""
        layout, run = self.layout, opened_run(self.context, opened)
        try:
            if run is None:
                raise RunError("This run was already deleted elsewhere.")
            remove(self.context.workspace, run)
        except NibbleError as error:
            return {layout.message: explain(error), layout.sure: gr.Row(visible=False)}
        index_of(self.context.workspace).look_again(run.id)
        picked, compared = (tuple(each for each in ids if each != run.id) for ids in (asked.picked, asked.compared))
        away: Updates = {layout.opened: "", layout.pane: gr.Column(visible=False), layout.sure: gr.Row(visible=False)}
        return {**away, layout.message: "", layout.asked: replace(asked, picked=picked, compared=compared)}


def _in_the_app(error: Exception, opened: str) -> Exception:
    """A refusal that speaks of the command line, as one that speaks of the run and the fields in sight."""
    if not isinstance(error, NibbleError):
        return error
    why = str(error).replace("--set train.epochs=N or --set train.max_steps=N", "more epochs or a higher Max steps")
    return RunError(why.replace(f"Run {opened}", "This run").replace(f"run {opened}", "this run"))
