"""What happens on a press of the Arena layout. Each parses, calls what the server remembers once, and renders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.arena import html as arena_html
from app.arena.jobs import ArenaJobs
from app.arena.layout import ArenaLayout
from app.arena.leaderboard import Leaderboard
from app.arena.match import PREPARED, RUN, SHIPPED, TYPED, MatchSession
from app.context import Context
from app.server.uploads import folder_to_send, forget
from app.ui import html as ui_html
from app.ui import menus as ui_menus
from app.ui.background_job import follow
from app.ui.sampling import sampling_of
from app.ui.updates import Given, Updates
from core.arena.match import ITS_BASE
from core.arena.prompts import categories
from core.arena.votes import Choice
from core.arena.votes_csv import as_votes, read_table, write_table
from core.errors import NibbleError
from core.workspace import read_json, write_json

ASK = {TYPED: "Send to both", PREPARED: "Next pair"}


class ArenaEvents:
    """The callbacks."""

    def __init__(
        self,
        layout: ArenaLayout,
        context: Context,
        matches: MatchSession,
        leaderboard: Leaderboard,
        jobs: ArenaJobs,
    ) -> None:
        self.layout, self.context = layout, context
        self.matches, self.leaderboard, self.jobs = matches, leaderboard, jobs

    def ask(self, given: Given) -> Iterator[Updates]:
        """Begin the next match and show both replies as they grow."""
        values = self._values(given)
        try:
            question = given[self.layout.question] or ""
            sampling = sampling_of(values)
            keys = [self.context.chat_model(key) for key in (values["first"] or "", values["second"] or ITS_BASE)]
            self.matches.ask(values["source"] or SHIPPED, question, values["system"] or "", keys, sampling)
        except NibbleError as error:
            yield {self.layout.status: ui_html.error_box(str(error))}
            return
        typed = {self.layout.question: ""} if values["source"] == TYPED else {}
        yield {**self.render(), **typed}
        yield from follow(self.matches, self.render)
        if typed and self.matches.error:
            yield {**self.render(), self.layout.question: question}

    def stop(self) -> str:
        """End the replies under way."""
        self.matches.stop()
        return ui_html.busy("Stopping…")

    def vote(self, choice: Choice) -> Updates:
        """One of the four buttons."""
        try:
            self.matches.vote(choice)
        except NibbleError as error:
            return {self.layout.status: ui_html.error_box(str(error))}
        return self.render()

    def render(self) -> Updates:
        """The present match as it stands."""
        layout, busy, match = self.layout, self.matches.busy, self.matches.match
        votable = match is not None and match.ready and match.vote is None and not busy
        decided = ""
        if match is not None and match.vote is not None:
            decided = arena_html.decided(match.vote, self.matches.waiting() if match.models is None else None)
        updates: Updates = {
            layout.status: self.matches.html(),
            layout.asked: arena_html.asked(match),
            layout.decided: decided,
            layout.duel: gr.Column(visible=match is not None),
            layout.stop: gr.Button(visible=busy),
            layout.go: gr.Button(interactive=not busy),
        }
        for side, (head, reply) in enumerate(zip(layout.heads, layout.replies, strict=True)):
            updates[head] = arena_html.heading(match, side, busy)
            updates[reply] = arena_html.reply_text(match, side)
        return updates | {button: gr.Button(interactive=votable) for button in layout.votes.values()}

    def choose_source(self, source: str) -> Updates:
        """Where questions come from decides what is to be pressed."""
        layout = self.layout
        updates: Updates = {layout.question: gr.Textbox(visible=source == TYPED)}
        updates[layout.go] = gr.Button(ASK.get(source, "Next prompt"))
        if source == PREPARED:
            updates[layout.status] = ui_html.note_box(arena_html.waits(self.matches.waiting()))
        return updates

    def remember(self, given: Given) -> None:
        """Keep the settings, so that a reload finds them again."""
        write_json(self._file, self._values(given))

    def count(self, kinds: list[str]) -> str:
        """Another choice of whose votes count."""
        self.leaderboard.kinds = tuple(sorted(kinds))
        return self.leaderboard.look()

    def take_in(self, path: str | None) -> Updates:
        """Import a file of votes."""
        if not path:
            message = "No file was received. Choose one, or drop it here again."
            return {self.layout.exchanged: ui_html.error_box(message)}
        try:
            file = Path(path)
            table = read_table(file)
            votes = as_votes(table.games, file, self.matches.votes.refresh())
            self.matches.votes.add(votes)
            forget([path])
        except NibbleError as error:
            return {self.layout.upload: None, self.layout.exchanged: ui_html.error_box(str(error))}
        message = ui_html.note_box(table.summary)
        if table.reasons:
            message = arena_html.not_read(table.summary, table.reasons, table.unreadable)
        return {self.layout.upload: None, self.layout.exchanged: message, self.layout.board: self.leaderboard.look()}

    def export(self) -> Updates:
        """Write all votes into a file to take away."""
        votes = self.matches.votes.refresh()
        if not votes:
            return {self.layout.exchanged: ui_html.error_box("There are no votes to export yet.")}
        file = folder_to_send() / "votes.csv"
        file.write_text(write_table(votes), encoding="utf-8")
        message = ui_html.note_box(f"{ui_html.number(len(votes))} votes are being downloaded as votes.csv.")
        return {self.layout.download: str(file), self.layout.exchanged: message}

    def prepare(self, given: Given) -> Updates:
        """Begin to make answers in advance."""
        values = self._values(given)
        keys = values["bulk_voices"] or [values["first"] or "", values["second"] or ITS_BASE]
        settings = {name: values[name] for name in ("greedy", "temperature", "top_p", "max_new_tokens")}
        try:
            keys = [self.context.chat_model(key) for key in keys]
            self.jobs.prepare(keys, values["bulk_source"] or SHIPPED, values["system"] or "", settings)
        except NibbleError as error:
            return {self.layout.bulk_message: ui_html.error_box(str(error))}
        return {self.layout.bulk_message: ui_html.busy("Starting…"), self.layout.bulk_stop: gr.Button(visible=True)}

    def stop_preparing(self) -> str:
        """End it; what is there is kept."""
        self.jobs.preparing.stop()
        return ui_html.busy("Stopping…")

    def judge(self, url: str, model: str, key: str) -> Updates:
        """Have the prepared answers judged. The key leaves the screen; it is kept nowhere."""
        layout = self.layout
        try:
            self.jobs.judge(url or "", model or "", (key or "").strip())
        except NibbleError as error:
            return {layout.judge_message: ui_html.error_box(str(error))}
        return {
            layout.judge_message: ui_html.busy("Starting…"),
            layout.judge_stop: gr.Button(visible=True),
            layout.judge["key"]: "",
        }

    def stop_judging(self) -> str:
        """End it after the pair under way."""
        self.jobs.judging.stop()
        return ui_html.busy("Stopping after this pair…")

    def fill(self) -> Updates:
        """Menus, the last settings, the match and the jobs as they stand."""
        layout, kept = self.layout, read_json(self._file)
        values = kept if isinstance(kept, dict) else {}
        updates = self.menus(values)
        updates |= {layout.settings[name]: values[name] for name in layout.settings if values.get(name) is not None}
        updates |= {layout.judge[name]: values.get(f"judge_{name}") or "" for name in ("url", "model")}
        source = values.get("source") or SHIPPED
        return {**updates, **self.render(), **self.choose_source(source), layout.whose: list(self.leaderboard.kinds)}

    def menus(self, kept: dict[str, Any] | None) -> Updates:
        """The menus as they are now; with `kept` also what was chosen, where that is still there."""
        layout, offered = self.layout, ui_menus.chat_models(self.context.workspace)
        against = [("Base model", ITS_BASE), *offered]
        sources, asked = self._sources()
        menus = {
            layout.first: (offered, "first"),
            layout.second: (against, "second"),
            layout.source: (sources, "source"),
            layout.bulk_models: (against, "bulk_voices"),
            layout.bulk_source: (asked, "bulk_source"),
        }
        if kept is None:
            return {menu: gr.Dropdown(choices=items) for menu, (items, _) in menus.items()}
        usual: dict[str, Any] = {
            "first": next((key for _, key in offered), None),
            "second": ITS_BASE,
            "bulk_voices": [],
        }
        updates: Updates = {}
        for menu, (items, name) in menus.items():
            there, wanted = {key for _, key in items}, kept.get(name)
            if isinstance(wanted, list):
                wanted = [key for key in wanted if key in there]
            elif wanted not in there:
                wanted = usual.get(name, SHIPPED)
            updates[menu] = gr.Dropdown(choices=items, value=wanted)
        return updates

    def _sources(self) -> tuple[ui_menus.Choices, ui_menus.Choices]:
        """Where the next question may come from, and the questions that may be prepared."""
        asked = [("Nibble's prompts", SHIPPED)]
        asked += [(f"Nibble's prompts: {each.title}", f"{SHIPPED}:{each.name}") for each in categories()]
        for run in self.matches.trained():
            asked.append((f"Validation split of {run.name} · {ui_html.date(run.created)}", f"{RUN}:{run.id}"))
        return [("My own prompt", TYPED), ("Prepared replies", PREPARED), *asked], asked

    def _values(self, given: Given) -> dict[str, Any]:
        return {name: given[component] for name, component in self.layout.form().items()}

    @property
    def _file(self) -> Path:
        return self.context.workspace.state / "arena.json"
