"""The Arena tab: blind matches between two models, and the leaderboard that the votes come to."""

from functools import partial
from typing import Any

import gradio as gr

from app.arena import layout as arena_layout
from app.arena.events import ArenaEvents
from app.arena.jobs import ArenaJobs
from app.arena.leaderboard import Leaderboard
from app.arena.match import MatchSession
from app.context import Context
from app.ui.tab import PageParts, Tab
from app.ui.updates import LATEST, ONCE, QUIET, Seen, Updates, is_new, press_button
from core.arena.answers import AnswerBook
from core.arena.votes import CHOICES, VoteBook


class ArenaTab(Tab):
    """The tab, and what the server remembers for it."""

    name, title = "arena", "Arena"
    layout: arena_layout.ArenaLayout
    events: ArenaEvents

    def __init__(self, context: Context) -> None:
        self.context = context
        # The models reply from the chat's own process, so that a base is loaded once for both.
        workspace = context.workspace
        self.matches = MatchSession(workspace, context.chat, VoteBook(workspace), AnswerBook(workspace))
        self.leaderboard, self.jobs = Leaderboard(self.matches.votes), ArenaJobs(self.matches)

    def build(self) -> None:
        """Lay the tab out."""
        self.layout = arena_layout.build()
        self.filled_later, self.outputs = self.layout.filled(), self.layout.watched()
        self.events = ArenaEvents(self.layout, self.context, self.matches, self.leaderboard, self.jobs)

    def wire(self, page: PageParts) -> None:
        """Attach the events."""
        layout, events, given = self.layout, self.events, self.layout.inputs()
        asked = [*layout.match(), layout.question]
        gr.on([layout.go.click, layout.question.submit], events.ask, given, asked, **ONCE)
        layout.stop.click(events.stop, None, layout.status, queue=False, **QUIET)
        for choice in CHOICES:
            layout.votes[choice].click(partial(events.vote, choice), None, layout.match(), **ONCE)
        shown = [layout.question, layout.go, layout.status]
        layout.source.change(events.choose_source, layout.source, shown, queue=False, **QUIET)
        kept = [component.input for component in layout.form().values()]
        gr.on(kept, events.remember, given, None, **LATEST)
        layout.to_train.click(lambda: gr.Tabs(selected="train"), None, page.tabs, **QUIET)
        self._wire_votes()
        self._wire_jobs()

    def _wire_votes(self) -> None:
        layout, events = self.layout, self.events
        layout.whose.input(events.count, layout.whose, layout.board, **LATEST)
        read = [layout.upload, layout.exchanged, layout.board]
        layout.upload.upload(events.take_in, layout.upload, read, **QUIET)
        written = layout.export.click(events.export, None, [layout.download, layout.exchanged], **ONCE)
        written.success(None, None, None, js=press_button("nb-arena-download"), **QUIET)

    def _wire_jobs(self) -> None:
        layout, events = self.layout, self.events
        layout.bulk.click(events.prepare, layout.inputs(), [layout.bulk_message, layout.bulk_stop], **ONCE)
        layout.bulk_stop.click(events.stop_preparing, None, layout.bulk_message, queue=False, **QUIET)
        judge = layout.judge
        judged = [layout.judge_message, layout.judge_stop, judge["key"]]
        layout.judge_go.click(events.judge, [judge["url"], judge["model"], judge["key"]], judged, **ONCE)
        layout.judge_stop.click(events.stop_judging, None, layout.judge_message, queue=False, **QUIET)

    def fill_later(self) -> Updates:
        """Menus, the last settings, and the match as it stands."""
        return self.events.fill()

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """What changed since this browser last saw it. A first look draws everything but the match and the menus."""
        layout, jobs, first = self.layout, self.jobs, not seen
        updates: Updates = {}
        if is_new(seen, "match", self.matches.version) and not first:
            updates |= self.events.render()
        for component, html in (
            (layout.board, self.leaderboard.look()),
            (layout.bulk_message, jobs.preparing_html()),
            (layout.judge_message, jobs.judging_html(self.leaderboard.bias)),
        ):
            if is_new(seen, f"html {component._id}", html):
                updates[component] = html
        for button, job in ((layout.bulk_stop, jobs.preparing), (layout.judge_stop, jobs.judging)):
            if is_new(seen, f"busy {button._id}", job.busy):
                updates[button] = gr.Button(visible=job.busy)
        there = [run.id for run in self.matches.trained()]
        if is_new(seen, "models", there) and not first:
            updates |= self.events.menus(None)
        if is_new(seen, "trained", bool(there)):
            updates[layout.to_train] = gr.Button(visible=not there)
        return updates

    def close(self) -> None:
        """End the jobs: what they have done is kept."""
        self.jobs.stop()
