"""What happens on a press of the Chat tab. Each parses, calls what the server remembers once, and renders."""

import json
from collections.abc import Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr

from app.chat import html as chat_html
from app.chat.compare import Comparison
from app.chat.conversation import ChatConversation, ReplySettings
from app.chat.layout import ChatLayout, ComparePart
from app.chat.serving import ServingSession
from app.context import Context
from app.server.uploads import folder_to_send
from app.ui import html
from app.ui.background_job import follow
from app.ui.markdown import as_written, plain
from app.ui.sampling import sampling_of
from app.ui.updates import Given, Updates
from core.errors import NibbleError
from core.workspace import read_json, write_json

KINDS = ("base:", "run:", "adapter:")


class ChatEvents:
    """The callbacks."""

    def __init__(
        self,
        layout: ChatLayout,
        context: Context,
        conversation: ChatConversation,
        comparison: Comparison,
        serving: ServingSession,
    ) -> None:
        self.layout, self.context = layout, context
        self.conversation, self.comparison, self.serving = conversation, comparison, serving

    def say(self, given: Given) -> Iterator[Updates]:
        """Send the message and show the reply as it grows. What is not loaded yet is loaded first."""
        settings = yield from self._settings(given)
        if settings is None:
            return
        before = len(self.conversation.turns)
        self.conversation.say(given[self.layout.message] or "", self._key(given), settings)
        taken = len(self.conversation.turns) > before
        yield {**({self.layout.message: ""} if taken else {}), **self._shown()}
        yield from self._watch()

    def regenerate(self, given: Given) -> Iterator[Updates]:
        """Have the last message answered once more."""
        settings = yield from self._settings(given)
        if settings is not None:
            self.conversation.again(self._key(given), settings)
            yield from self._watch()

    def edit(self, given: Given, event: gr.EditData) -> Iterator[Updates]:
        """Put another text in the place of a message, and have it answered; what came after it is forgotten."""
        settings = yield from self._settings(given)
        if settings is not None:
            shown = event.index if isinstance(event.index, int) else event.index[0]
            at = chat_html.turn_at(self.conversation.turns, shown)
            if at is not None:
                self.conversation.edit(at, as_written(event.value), self._key(given), settings)
            yield from self._watch()

    def undo(self) -> Updates:
        """Take the last message and its reply back; the message is there to be changed."""
        return {self.layout.message: self.conversation.undo(), **self._shown()}

    def clear(self) -> Updates:
        """Start a new conversation."""
        self.conversation.clear()
        return self._shown()

    def unload(self) -> str:
        """End the chat's process, so that a training has the memory."""
        self.conversation.unload()
        return html.note_box("The model is unloaded. The next message loads it again.")

    def serve(self, given: Given) -> Updates:
        """Begin or end the endpoint for other programs."""
        try:
            self.serving.toggle("" if self.serving.serves else self._key(given))
        except NibbleError as error:
            return {self.layout.served: html.error_box(str(error))}
        return served(self.layout, self.serving)

    def compare(self, given: Given) -> Iterator[Updates]:
        """Ask several models, and show the replies as they grow."""
        part = self.layout.compare
        try:
            keys = [self.context.chat_model(key_of(key)) for key in given[part.who] or []]
            sampling = sampling_of(self.layout.values(given))
        except NibbleError as error:
            yield {part.status: html.error_box(str(error))}
            return
        self.comparison.ask(given[part.question] or "", keys, sampling, _system(self.layout, given))
        yield from follow(self.comparison, lambda: render_comparison(part, self.comparison))

    def save(self, given: Given) -> Updates:
        """The conversation as a file to take away."""
        if not self.conversation.turns:
            return {self.layout.status: html.note_box("There is nothing to download yet.")}
        file = conversation_file(self.conversation, _system(self.layout, given))
        return {self.layout.download: str(file), self.layout.status: html.note_box(f"{file.name} is being downloaded.")}

    def remember(self, given: Given) -> None:
        """Keep the settings, so that a reload finds them again."""
        values = self.layout.values(given)
        chosen = {"talker": given[self.layout.model], "several": given[self.layout.compare.who]}
        write_json(_file(self.context), {**values, **chosen})

    def _watch(self) -> Iterator[Updates]:
        """Show how far the reply has come until it is whole."""
        return follow(self.conversation, self._shown)

    def _shown(self) -> Updates:
        return render(self.layout, self.conversation)

    def _key(self, given: Given) -> str:
        """Who is chosen, or the folder of an adapter that was typed. Raises NibbleError for one that may not be."""
        return self.context.chat_model(key_of(given[self.layout.model]))

    def _settings(self, given: Given) -> Generator[Updates, None, ReplySettings | None]:
        """How to reply; None, and the sentence on the screen, where a setting cannot be."""
        try:
            self._key(given)
            answers_from = given[self.layout.answers_from]
            return ReplySettings(answers_from, sampling_of(self.layout.values(given)), _system(self.layout, given))
        except NibbleError as error:
            yield {self.layout.status: html.error_box(str(error))}
            return None


def render(layout: ChatLayout, conversation: ChatConversation) -> Updates:
    """The conversation as it stands."""
    turns, free = conversation.turns, not conversation.answering
    replied = any(turn.role == "assistant" for turn in turns)
    return {
        layout.chatbot: chat_html.messages(turns),
        layout.status: conversation.html(),
        layout.stop: gr.Button(visible=conversation.busy),
        layout.again: gr.Button(interactive=bool(turns) and free),
        layout.undo: gr.Button(interactive=bool(turns) and free),
        layout.send: gr.Button(interactive=free),
        layout.to_data: gr.Button(interactive=replied and free),
        layout.context: chat_html.context_meter(*conversation.context),
    }


def render_comparison(part: ComparePart, comparison: Comparison) -> Updates:
    """The columns as they stand."""
    names = [column.label for column in comparison.columns]
    updates: Updates = {
        part.status: comparison.html(),
        part.stop: gr.Button(visible=comparison.busy),
        part.ask: gr.Button(interactive=not comparison.busy),
        part.differs: chat_html.differences(names, comparison.differs),
    }
    for at, place in enumerate(part.columns):
        there = comparison.columns[at] if at < len(comparison.columns) else None
        updates |= {place.column: gr.Column(visible=there is not None), place.head: "", place.reply: ""}
        if there is not None:
            error = html.error_box(there.error) if there.error else ""
            updates[place.head] = f"<h4>{html.text(there.label)}</h4>{error}"
            note = f"\n\n<small>{plain(there.note)}</small>"
            updates[place.reply] = f"{chat_html.reply(there.text)}{note}" if there.text or there.note else ""
    return updates


def answers_from(model: str | None) -> Any:
    """A base alone has no adapter to answer from."""
    alone = (model or "").startswith("base:")
    return gr.Radio(value="base" if alone else "adapter", interactive=not alone)


def key_of(model: str | None) -> str:
    """The key of what stands in a menu: one of its own, or the folder of an adapter that was typed."""
    typed = (model or "").strip()
    return typed if not typed or typed.startswith(KINDS) else f"adapter:{typed}"


def conversation_file(conversation: ChatConversation, system: str) -> Path:
    """The conversation in a file of `messages`, one line, in the folder that Gradio may send from."""
    head = [{"role": "system", "content": system.strip()}] if system.strip() else []
    name = f"chat {datetime.now():%Y-%m-%d %H.%M.%S}.jsonl"
    file = folder_to_send() / name
    row = {"messages": head + conversation.messages()}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def served(layout: ChatLayout, serving: ServingSession) -> Updates:
    """The endpoint as it stands."""
    return {layout.serve: "Stop the API" if serving.serves else "Start the API", layout.served: serving.box()}


def kept_settings(context: Context) -> dict[str, Any]:
    """The settings as they were left."""
    kept = read_json(_file(context))
    return kept if isinstance(kept, dict) else {}


def _system(layout: ChatLayout, given: Given) -> str:
    return str(given[layout.settings["system"]] or "")


def _file(context: Context) -> Path:
    return context.workspace.state / "chat.json"
