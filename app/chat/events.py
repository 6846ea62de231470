"""What happens on a press of the Chat tab. Each parses, calls the talk once, and renders."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from app.chat import html as chat_html
from app.chat.conversation import ReplySettings
from app.chat.view import Updates, render, render_sides
from app.context import Context
from app.server.uploads import folder_to_send
from app.ui import html
from app.ui.markdown import as_written
from core.errors import NibbleError
from core.generation.sampling import Sampling, SamplingError
from core.workspace import read_json, write_json

if TYPE_CHECKING:
    from app.chat.layout import ChatTab

Given = dict[Component, Any]
LOOKS_A_SECOND = 12
KINDS = ("base:", "run:", "adapter:")


class ChatEvents:
    """The conversation's callbacks."""

    def __init__(self, tab: ChatTab, context: Context) -> None:
        self.tab, self.context, self.talk = tab, context, context.talk

    def say(self, given: Given) -> Iterator[Updates]:
        """Send the message and show the reply as it grows. What is not loaded yet is loaded first."""
        manner = yield from self._manner(given)
        if manner is None:
            return
        before = len(self.talk.turns)
        self.talk.say(given[self.tab.message] or "", self._key(given), manner)
        taken = len(self.talk.turns) > before
        yield {**({self.tab.message: ""} if taken else {}), **self._shown()}
        yield from self._watch()

    def regenerate(self, given: Given) -> Iterator[Updates]:
        """Have the last message answered once more."""
        manner = yield from self._manner(given)
        if manner is not None:
            self.talk.again(self._key(given), manner)
            yield from self._watch()

    def edit(self, given: Given, event: gr.EditData) -> Iterator[Updates]:
        """Put another text in the place of a message, and have it answered; what came after it is forgotten."""
        manner = yield from self._manner(given)
        if manner is not None:
            shown = event.index if isinstance(event.index, int) else event.index[0]
            at = chat_html.turn_at(self.talk.turns, shown)
            if at is not None:
                self.talk.edit(at, as_written(event.value), self._key(given), manner)
            yield from self._watch()

    def undo(self) -> Updates:
        """Take the last message and its reply back; the message is there to be changed."""
        return {self.tab.message: self.talk.undo(), **self._shown()}

    def clear(self) -> Updates:
        """Start a new conversation."""
        self.talk.clear()
        return self._shown()

    def unload(self) -> str:
        """End the chat's process, so that a training has the memory."""
        self.talk.unload()
        return html.note_box("Its memory is free. The next message loads it again.")

    def serve(self, given: Given) -> Updates:
        """Begin or end the endpoint for other programs."""
        desk = self.context.serving
        try:
            desk.toggle("" if desk.serves else self._key(given))
        except NibbleError as error:
            return {self.tab.served: html.error_box(str(error))}
        return {self.tab.serve: "Stop serving" if desk.serves else "Serve it", self.tab.served: desk.box()}

    def save(self, given: Given) -> Updates:
        """The conversation as a file to take away."""
        if not self.talk.turns:
            return {self.tab.status: html.note_box("There is nothing to download yet.")}
        file = conversation_file(self.context, given[self.tab.settings["system"]] or "")
        return {self.tab.download: str(file), self.tab.status: html.note_box(f"{file.name} is being downloaded.")}

    def remember(self, given: Given) -> None:
        """Keep the settings, so that a reload finds them again."""
        values = {key: given[component] for key, component in self.tab.settings.items()}
        chosen = {"talker": given[self.tab.talker], "several": given[self.tab.compare.who]}
        write_json(_file(self.context), {**values, **chosen})

    def _watch(self) -> Iterator[Updates]:
        """Show how far the reply has come until it is whole. It goes on without us when the page is closed."""
        version = -1
        while self.talk.busy:
            if self.talk.version != version:
                version = self.talk.version
                yield self._shown()
            time.sleep(1 / LOOKS_A_SECOND)
        yield self._shown()

    def _shown(self) -> Updates:
        return render(self.tab, self.talk)

    def _key(self, given: Given) -> str:
        """Who is chosen, or the folder of an adapter that was typed. Raises NibbleError for one that may not be."""
        return self.context.voice(key_of(given[self.tab.talker]))

    def _manner(self, given: Given) -> Generator[Updates, None, ReplySettings | None]:
        """How to reply; None, and the sentence on the screen, where a setting cannot be."""
        try:
            self._key(given)
            return ReplySettings(given[self.tab.voice], sampling_of(self.tab, given), _system(self.tab, given))
        except NibbleError as error:
            yield {self.tab.status: html.error_box(str(error))}
            return None


class CompareEvents:
    """The callbacks of one question to several voices."""

    def __init__(self, tab: ChatTab, context: Context) -> None:
        self.tab, self.context, self.sides = tab, context, context.sides

    def ask(self, given: Given) -> Iterator[Updates]:
        """Ask all of them, and show the replies as they grow."""
        part = self.tab.compare
        try:
            keys = [self.context.voice(key_of(key)) for key in given[part.who] or []]
            sampling = sampling_of(self.tab, given)
        except NibbleError as error:
            yield {part.status: html.error_box(str(error))}
            return
        self.sides.ask(given[part.question] or "", keys, sampling, _system(self.tab, given))
        version = -1
        while self.sides.busy:
            if self.sides.version != version:
                version = self.sides.version
                yield render_sides(self.tab, self.sides)
            time.sleep(1 / LOOKS_A_SECOND)
        yield render_sides(self.tab, self.sides)


def voice_radio(talker: str | None) -> Any:
    """A base alone has no adapter to answer from."""
    alone = (talker or "").startswith("base:")
    return gr.Radio(value="base" if alone else "adapter", interactive=not alone)


def key_of(talker: str | None) -> str:
    """The key of what stands in a menu: one of its own, or the folder of an adapter that was typed."""
    typed = (talker or "").strip()
    return typed if not typed or typed.startswith(KINDS) else f"adapter:{typed}"


def sampling_of(tab: ChatTab, given: Given) -> Sampling:
    """How tokens are drawn, as the settings say. Raises NibbleError where one of them cannot be."""
    values = {key: given[component] for key, component in tab.settings.items()}
    seed = str(values["seed"] or "").strip()
    if seed and not seed.isdecimal():
        raise SamplingError("seed", f"Seed: {seed[:20]!r} is not possible; allowed: a whole number, or nothing.")
    return Sampling(
        greedy=bool(values["greedy"]),
        temperature=float(values["temperature"]),
        top_p=float(values["top_p"]),
        top_k=int(values["top_k"]),
        repetition_penalty=float(values["repetition_penalty"]),
        max_new_tokens=int(values["max_new_tokens"]),
        seed=int(seed) if seed else None,
        stop=tuple(line for line in (values["stop"] or "").splitlines() if line.strip()),
    )


def conversation_file(context: Context, system: str) -> Path:
    """The conversation in a file of `messages`, one line, in the folder that Gradio may send from."""
    head = [{"role": "system", "content": system.strip()}] if system.strip() else []
    name = f"chat {datetime.now():%Y-%m-%d %H.%M.%S}.jsonl"
    file = folder_to_send() / name
    row = {"messages": head + context.talk.messages()}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def kept_settings(context: Context) -> dict[str, Any]:
    """The settings as they were left."""
    kept = read_json(_file(context))
    return kept if isinstance(kept, dict) else {}


def _system(tab: ChatTab, given: Given) -> str:
    return str(given[tab.settings["system"]] or "")


def _file(context: Context) -> Path:
    return context.workspace.state / "chat.json"
