"""The Chat tab: talk to a base, an adapter, a checkpoint; ask several the same question; let others use it."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.chat import layout as chat_layout
from app.chat.compare import Comparison
from app.chat.conversation import ChatConversation
from app.chat.events import ChatEvents, answers_from, kept_settings, render, render_comparison, served
from app.chat.serving import ServingSession
from app.context import Context
from app.ui import menus
from app.ui.tab import PageParts, Tab
from app.ui.updates import LATEST, ONCE, QUIET, Seen, Updates, is_new, press_button
from core.runs.index import index_of
from core.runs.queue import at_work


class ChatTab(Tab):
    """The tab, and what the server remembers for it."""

    name, title = "chat", "Chat"
    layout: chat_layout.ChatLayout

    def __init__(self, context: Context) -> None:
        self.context = context
        self.conversation = ChatConversation.open(context.workspace, context.chat)
        self.comparison = Comparison.open(context.workspace, context.chat)
        self.serving = ServingSession(context.workspace, context.chat)

    def build(self) -> None:
        """Lay the tab out."""
        self.layout = chat_layout.build()
        self.filled_later, self.outputs = self.layout.filled(), self.layout.watched()

    def wire(self, page: PageParts) -> None:
        """Attach the events."""
        layout, inputs = self.layout, self.layout.inputs()
        events = ChatEvents(layout, self.context, self.conversation, self.comparison, self.serving)
        shown = [*layout.conversation(), layout.message]
        gr.on([layout.send.click, layout.message.submit], events.say, inputs, shown, **ONCE)
        layout.again.click(events.regenerate, inputs, shown, **ONCE)
        layout.chatbot.edit(events.edit, inputs, shown, **ONCE)
        layout.undo.click(events.undo, None, shown, **ONCE)
        layout.stop.click(self.conversation.stop, None, None, queue=False, **QUIET)
        gr.on([layout.clear.click, layout.chatbot.clear], events.clear, None, shown, **QUIET)
        ready = layout.save.click(events.save, inputs, [layout.download, layout.status], **ONCE)
        ready.success(None, None, None, js=press_button("nb-download-chat"), **QUIET)
        layout.unload.click(events.unload, None, layout.status, **QUIET)
        layout.serve.click(events.serve, inputs, [layout.serve, layout.served], **ONCE)
        kept = [layout.model, layout.answers_from, layout.compare.who, *layout.settings.values()]
        gr.on([component.input for component in kept], events.remember, inputs, None, **LATEST)
        layout.model.change(answers_from, layout.model, layout.answers_from, **QUIET)
        part = layout.compare
        gr.on([part.ask.click, part.question.submit], events.compare, inputs, part.shown(), **ONCE)
        part.stop.click(self.comparison.stop, None, None, queue=False, **QUIET)

    def fill_later(self) -> Updates:
        """Menus, the last settings, and the conversation as it was left."""
        layout, kept = self.layout, kept_settings(self.context)
        offered = menus.chat_models(self.context.workspace)
        values = [value for _, value in offered]
        model = kept.get("talker") if kept.get("talker") in values else next(iter(values), None)
        several = [key for key in kept.get("several") or [] if key in values] or _first_two(values)
        updates: Updates = {layout.settings[key]: kept[key] for key in layout.settings if key in kept}
        if self.comparison.prompt:  # where there is none, somebody may have begun to write one
            updates[layout.compare.question] = self.comparison.prompt
        return {
            **updates,
            **render(layout, self.conversation),
            **render_comparison(layout.compare, self.comparison),
            **served(layout, self.serving),
            layout.model: gr.Dropdown(choices=offered, value=model),
            layout.answers_from: answers_from(model),
            layout.compare.who: gr.Dropdown(choices=offered, value=several),
        }

    def choose(self, run_id: str) -> Updates:
        """Talk to this run from now on; it is loaded meanwhile."""
        self.conversation.load(f"run:{run_id}")
        offered = menus.chat_models(self.context.workspace)
        model = gr.Dropdown(choices=offered, value=f"run:{run_id}")
        return {self.layout.model: model, self.layout.answers_from: "adapter"}

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """Replies that go on while nobody watches them (after a reload), and what has become ready to talk to."""
        layout, first, updates = self.layout, not seen, Updates()
        draws: tuple[tuple[str, int, Callable[[], Updates]], ...] = (
            ("conversation", self.conversation.version, lambda: render(layout, self.conversation)),
            ("comparison", self.comparison.version, lambda: render_comparison(layout.compare, self.comparison)),
        )
        for name, version, draw in draws:
            if is_new(seen, name, version) and not first:
                updates |= draw()
        if is_new(seen, "models", self._ready()) and not first:
            offered = menus.chat_models(self.context.workspace)
            updates |= {component: gr.Dropdown(choices=offered) for component in (layout.model, layout.compare.who)}
        return updates

    def rest(self) -> None:
        """Unload a model that nobody has talked to for a while."""
        self.conversation.rest()

    def close(self) -> None:
        """End the chat's process."""
        self.conversation.unload()

    def _ready(self) -> list[str]:
        """What would make the menu another one: runs with an adapter, and the checkpoints of the run at work."""
        workspace = self.context.workspace
        runs = [row.run_id for row in index_of(workspace).rows(within_seconds=0.5) if row.has_adapter]
        run = at_work(workspace)
        return runs + (sorted(path.name for path in (run.dir / "checkpoints").glob("[0-9]*")) if run else [])


def _first_two(values: list[str]) -> list[str]:
    """What is compared unless something else was chosen: the newest adapter and the first base."""
    runs = [value for value in values if value.startswith("run:")]
    return [*runs[:1], *[value for value in values if value.startswith("base:")][:1]] if runs else []
