"""What happens on a press of the Arena tab. Each parses, asks the desk once, and renders."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from app.arena import html as arena_html
from app.arena.match import PREPARED, RUN, SHIPPED, TYPED, sampling_of
from app.context import Context
from app.server.uploads import folder_to_send, forget
from app.ui import html as ui_html
from app.ui import menus as ui_menus
from core.arena.contestants import ITS_BASE
from core.arena.match import Match
from core.arena.prompts import categories
from core.arena.votes import Choice
from core.arena.votes_csv import as_votes, read_table, write_table
from core.errors import NibbleError
from core.workspace import read_json, write_json

if TYPE_CHECKING:
    from app.arena.layout import ArenaTab

Updates = dict[Any, Any]
LOOKS_A_SECOND = 10
PRESS_EXPORT = "() => setTimeout(() => document.querySelector('#nb-arena-download')?.click(), 300)"
ASK = {TYPED: "Ask both", PREPARED: "Next pair"}


class ArenaEvents:
    """The callbacks."""

    def __init__(self, tab: ArenaTab, context: Context) -> None:
        self.tab, self.context = tab, context
        self.desk, self.standing, self.work = context.arena.desk, context.arena.standing, context.arena.work

    def ask(self, given: dict[Component, Any]) -> Iterator[Updates]:
        """Begin the next match and show both replies as they grow."""
        values = self._values(given)
        try:
            question = given[self.tab.question] or ""
            sampling = sampling_of(values)
            keys = [self.context.voice(key) for key in (values["first"] or "", values["second"] or ITS_BASE)]
            self.desk.ask(values["source"] or SHIPPED, question, values["system"] or "", keys, sampling)
        except NibbleError as error:
            yield {self.tab.status: ui_html.error_box(str(error))}
            return
        typed = {self.tab.question: ""} if values["source"] == TYPED else {}
        yield {**self.render(), **typed}
        version = self.desk.version
        while self.desk.busy:
            if self.desk.version != version:
                version = self.desk.version
                yield self.render()
            time.sleep(1 / LOOKS_A_SECOND)
        yield {**self.render(), **({self.tab.question: question} if typed and self.desk.error else {})}

    def stop(self) -> str:
        """End the replies under way."""
        self.desk.stop()
        return ui_html.busy("Stopping…")

    def voter(self, choice: Choice) -> Callable[[], Updates]:
        """The callback of one of the four buttons."""

        def vote() -> Updates:
            try:
                self.desk.vote(choice)
            except NibbleError as error:
                return {self.tab.status: ui_html.error_box(str(error))}
            return self.render()

        return vote

    def render(self) -> Updates:
        """The present match as it stands."""
        tab, desk, match = self.tab, self.desk, self.desk.match
        status = ui_html.busy(desk.state) if desk.state else ui_html.error_box(desk.error) if desk.error else ""
        votable = match is not None and match.ready and match.vote is None and not desk.busy
        updates: Updates = {
            tab.status: status,
            tab.asked: arena_html.asked(match),
            tab.decided: self._decided(match),
            tab.duel: gr.Column(visible=match is not None),
            tab.stop: gr.Button(visible=desk.busy),
            tab.go: gr.Button(interactive=not desk.busy),
        }
        for side, (head, reply) in enumerate(zip(tab.heads, tab.replies, strict=True)):
            updates[head] = arena_html.heading(match, side, desk.busy)
            updates[reply] = arena_html.said(match, side)
        return updates | {button: gr.Button(interactive=votable) for button in tab.votes.values()}

    def _decided(self, match: Match | None) -> str:
        if match is None or match.vote is None:
            return ""
        return arena_html.decided(match.vote, self.desk.waiting() if match.voices is None else None)

    def choose_source(self, source: str) -> Updates:
        """Where questions come from decides what is to be pressed."""
        tab = self.tab
        updates: Updates = {tab.question: gr.Textbox(visible=source == TYPED)}
        updates[tab.go] = gr.Button(ASK.get(source, "Next question"))
        if source == PREPARED:
            updates[tab.status] = ui_html.note_box(arena_html.waits(self.desk.waiting()))
        return updates

    def remember(self, given: dict[Component, Any]) -> None:
        """Keep the settings, so that a reload finds them again."""
        write_json(self._file, self._values(given))

    def count(self, kinds: list[str]) -> str:
        """Another choice of whose votes count."""
        self.standing.kinds = tuple(sorted(kinds))
        return self.standing.look()

    def take_in(self, path: str | None) -> Updates:
        """Import a file of votes."""
        if not path:
            return {self.tab.exchanged: ui_html.error_box("No file has come. Choose one, or drop it here once more.")}
        try:
            file = Path(path)
            table = read_table(file)
            votes = as_votes(table.games, file, self.desk.votes.refresh())
            self.desk.votes.add(votes)
            forget([path])
        except NibbleError as error:
            return {self.tab.upload: None, self.tab.exchanged: ui_html.error_box(str(error))}
        said = ui_html.note_box(table.summary)
        if table.reasons:
            said = arena_html.not_read(table.summary, table.reasons, table.unreadable)
        return {self.tab.upload: None, self.tab.exchanged: said, self.tab.board: self.standing.look()}

    def export(self) -> Updates:
        """Write all votes into a file to take away."""
        votes = self.desk.votes.refresh()
        if not votes:
            return {self.tab.exchanged: ui_html.error_box("There are no votes to export yet.")}
        file = folder_to_send() / "votes.csv"
        file.write_text(write_table(votes), encoding="utf-8")
        said = ui_html.note_box(f"{ui_html.number(len(votes))} votes are being downloaded as votes.csv.")
        return {self.tab.download: str(file), self.tab.exchanged: said}

    def prepare(self, given: dict[Component, Any]) -> Updates:
        """Begin to make answers in advance."""
        values = self._values(given)
        keys = values["bulk_voices"] or [values["first"] or "", values["second"] or ITS_BASE]
        settings = {name: values[name] for name in ("greedy", "temperature", "top_p", "max_new_tokens")}
        try:
            keys = [self.context.voice(key) for key in keys]
            self.work.prepare(keys, values["bulk_source"] or SHIPPED, values["system"] or "", settings)
        except NibbleError as error:
            return {self.tab.bulk_said: ui_html.error_box(str(error))}
        return {self.tab.bulk_said: ui_html.busy("Starting…"), self.tab.bulk_stop: gr.Button(visible=True)}

    def stop_preparing(self) -> str:
        """End it; what is there is kept."""
        self.work.preparing.stop()
        return ui_html.busy("Stopping…")

    def judge(self, url: str, model: str, key: str) -> Updates:
        """Have the prepared answers judged. The key leaves the screen; it is kept nowhere."""
        tab = self.tab
        try:
            self.work.judge(url or "", model or "", (key or "").strip())
        except NibbleError as error:
            return {tab.judge_said: ui_html.error_box(str(error))}
        return {
            tab.judge_said: ui_html.busy("Starting…"),
            tab.judge_stop: gr.Button(visible=True),
            tab.judge["key"]: "",
        }

    def stop_judging(self) -> str:
        """End it after the pair under way."""
        self.work.judging.stop()
        return ui_html.busy("Stopping after this pair…")

    def fill(self) -> Updates:
        """Menus, the last settings, the match and the jobs as they stand."""
        tab, kept = self.tab, read_json(self._file)
        values = kept if isinstance(kept, dict) else {}
        updates = self._menus(values)
        updates |= {tab.settings[name]: values[name] for name in tab.settings if values.get(name) is not None}
        updates |= {tab.judge[name]: values.get(f"judge_{name}") or "" for name in ("url", "model")}
        source = values.get("source") or SHIPPED
        return {**updates, **self.render(), **self.choose_source(source), tab.whose: list(self.standing.kinds)}

    def tick(self, seen: dict[str, str]) -> Updates:
        """What changed since this browser last saw it. A first look draws everything."""
        tab = self.tab
        updates: Updates = {}
        version = str(self.desk.version)
        if seen.get("match") != version:
            updates |= self.render() if "match" in seen else {}
            seen["match"] = version
        drawn = {
            tab.board: ("board", self.standing.look()),
            tab.bulk_said: ("bulk", self.work.preparing_html()),
            tab.judge_said: ("judge", self.work.judging_html(self.standing.bias)),
        }
        for component, (name, html) in drawn.items():
            if seen.get(name) != html:
                seen[name] = html
                updates[component] = html
        for name, button, job in (
            ("bulk running", tab.bulk_stop, self.work.preparing),
            ("judge running", tab.judge_stop, self.work.judging),
        ):
            if seen.get(name) != str(job.running):
                seen[name] = str(job.running)
                updates[button] = gr.Button(visible=job.running)
        there = ",".join(run.id for run in self.desk.trained())
        if seen.get("voices", there) != there:
            updates |= self._menus(None)
        if seen.get("trained") != str(bool(there)):
            seen["trained"] = str(bool(there))
            updates[tab.to_train] = gr.Button(visible=not there)
        seen["voices"] = there
        return updates

    def _menus(self, kept: dict[str, Any] | None) -> Updates:
        """The menus as they are now; with `kept` also what was chosen, where that is still there."""
        tab, offered = self.tab, ui_menus.talkers(self.context.workspace)
        against = [("Its base, without the adapter", ITS_BASE), *offered]
        sources, asked = self._sources()
        menus = {
            tab.first: (offered, "first"),
            tab.second: (against, "second"),
            tab.source: (sources, "source"),
            tab.bulk_voices: (against, "bulk_voices"),
            tab.bulk_source: (asked, "bulk_source"),
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
        asked = [("Nibble's set, all of it", SHIPPED)]
        asked += [(f"Nibble's set: {each.title}", f"{SHIPPED}:{each.name}") for each in categories()]
        asked += [
            (f"Held out by {run.name} · {ui_html.date(run.created)}", f"{RUN}:{run.id}") for run in self.desk.trained()
        ]
        return [("A question of my own", TYPED), ("Prepared answers", PREPARED), *asked], asked

    def _values(self, given: dict[Component, Any]) -> dict[str, Any]:
        return {name: given[component] for name, component in self.tab.form().items()}

    @property
    def _file(self) -> Path:
        return self.context.workspace.state / "arena.json"
