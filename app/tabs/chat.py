"""Chat: talk to a trained adapter and to its base, and hear the difference."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app import choices, pieces
from app.context import Context
from app.talk import Manner, Talk
from core.chat.sampling import Sampling
from core.runs.store import list_runs
from core.workspace import read_json, write_json

Updates = dict[Any, Any]
LOOKS_A_SECOND = 12
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
EMPTY = "### Nothing said yet\nChoose what to talk to above, write a message below, and press Enter."


@dataclass(frozen=True)
class ChatTab:
    """The components of the tab that events touch."""

    talker: gr.Dropdown
    voice: gr.Radio
    status: gr.HTML
    chatbot: gr.Chatbot
    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    again: gr.Button
    clear: gr.Button
    unload: gr.Button
    settings: dict[str, Component]

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: the callback gets one dict of values by component."""
        return {self.talker, self.voice, self.message, *self.settings.values()}


def build() -> ChatTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="nb-chat"):
        with gr.Column(scale=7, min_width=540):
            with gr.Row(elem_classes="nb-who"):
                talker = gr.Dropdown(label="Talk to", choices=[], value=None, scale=2, min_width=220)
                voice = gr.Radio(
                    [("Adapter", "adapter"), ("Base", "base")],
                    value="adapter",
                    label="Answers come from",
                    scale=1,
                    min_width=230,
                )
            status = gr.HTML(elem_classes="nb-slot")
            chatbot = gr.Chatbot(
                label="Conversation",
                show_label=False,
                height="56vh",
                min_height=320,
                placeholder=EMPTY,
                sanitize_html=True,
                allow_tags=False,
                feedback_options=None,
                buttons=["copy"],
                layout="bubble",
                elem_classes="nb-talk",
            )
            with gr.Row(elem_classes="nb-write"):
                message = gr.Textbox(
                    label="Message", placeholder="Write a message; Enter sends it", lines=1, max_lines=6, scale=8
                )
                send = gr.Button("Send", variant="primary", scale=1, min_width=90)
            with gr.Row(elem_classes="nb-actions"):
                stop = gr.Button("Stop", variant="stop", size="sm", visible=False)
                again = gr.Button("Regenerate", size="sm", interactive=False)
                clear = gr.Button("Clear", size="sm")
        with gr.Column(scale=2, min_width=240), gr.Accordion("How it answers", open=False):
            settings = _build_settings()
            unload = gr.Button("Free its memory", size="sm")
    return ChatTab(talker, voice, status, chatbot, message, send, stop, again, clear, unload, settings)


def _build_settings() -> dict[str, Component]:
    return {
        "greedy": gr.Checkbox(
            False, label="Always the likeliest word", info="Greedy: the same question gets the same answer."
        ),
        "temperature": gr.Slider(
            0.05, 2, value=0.7, step=0.05, label="Temperature", info="Higher is bolder, lower is safer."
        ),
        "top_p": gr.Slider(
            0.05, 1, value=0.9, step=0.05, label="Top-p", info="Draws only from the likeliest tokens of this share."
        ),
        "max_new_tokens": gr.Slider(
            8, 2048, value=256, step=8, label="Length limit (tokens)", info="The reply ends there at the latest."
        ),
        "system": gr.Textbox(
            label="System prompt", lines=3, placeholder="None", info="Said to the model before the conversation."
        ),
    }


def wire(tab: ChatTab, context: Context) -> None:
    """Attach the tab's events."""
    events = ChatEvents(tab, context)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    shown = [tab.chatbot, tab.status, tab.message, tab.stop, tab.again, tab.send]
    gr.on([tab.send.click, tab.message.submit], events.say, tab.inputs(), shown, trigger_mode="once", **quiet)
    tab.again.click(events.regenerate, tab.inputs(), shown, trigger_mode="once", **quiet)
    tab.stop.click(context.talk.stop, None, None, queue=False, **quiet)
    gr.on([tab.clear.click, tab.chatbot.clear], events.clear, None, shown, **quiet)
    tab.unload.click(events.unload, None, tab.status, **quiet)
    kept = [tab.talker.input, tab.voice.input, *(component.input for component in tab.settings.values())]
    gr.on(kept, events.remember, tab.inputs(), None, trigger_mode="always_last", **quiet)
    tab.talker.change(events.who, tab.talker, tab.voice, **quiet)


class ChatEvents:
    """What happens on a press."""

    def __init__(self, tab: ChatTab, context: Context) -> None:
        self.tab = tab
        self.context = context
        self.talk = context.talk

    def say(self, given: dict[Component, Any]) -> Iterator[Updates]:
        """Send the message and show the reply as it grows. What is not loaded yet is loaded first."""
        if self.talk.answering:
            yield {self.tab.status: pieces.note_box("It is still answering. Press Stop to end that first.")}
            return
        self.talk.say(given[self.tab.message] or "", given[self.tab.talker] or "", self._manner(given))
        yield {self.tab.message: "", **render(self.tab, self.talk)}
        yield from self._watch()

    def regenerate(self, given: dict[Component, Any]) -> Iterator[Updates]:
        """Have the last message answered once more."""
        self.talk.again(given[self.tab.talker] or "", self._manner(given))
        yield from self._watch()

    def _watch(self) -> Iterator[Updates]:
        """Show how far the reply has come until it is whole. It goes on without us when the page is closed."""
        version = -1
        while self.talk.busy:
            if self.talk.version != version:
                version = self.talk.version
                yield render(self.tab, self.talk)
            time.sleep(1 / LOOKS_A_SECOND)
        yield render(self.tab, self.talk)

    def _manner(self, given: dict[Component, Any]) -> Manner:
        values = {key: given[component] for key, component in self.tab.settings.items()}
        return Manner(
            voice=given[self.tab.voice],
            sampling=Sampling(
                greedy=bool(values["greedy"]),
                temperature=float(values["temperature"]),
                top_p=float(values["top_p"]),
                max_new_tokens=int(values["max_new_tokens"]),
            ),
            system=values["system"] or "",
        )

    def clear(self) -> Updates:
        """Start a new conversation."""
        self.talk.clear()
        return render(self.tab, self.talk)

    def unload(self) -> str:
        """End the chat's process, so that a training has the memory."""
        self.talk.unload()
        return pieces.note_box("Its memory is free. The next message loads it again.")

    def who(self, talker: str | None) -> Any:
        """A base alone has no adapter to answer from."""
        alone = (talker or "").startswith("base:")
        return gr.Radio(value="base" if alone else "adapter", interactive=not alone)

    def remember(self, given: dict[Component, Any]) -> None:
        """Keep the settings, so that a reload finds them again."""
        values = {key: given[component] for key, component in self.tab.settings.items()}
        write_json(_file(self.context), {**values, "talker": given[self.tab.talker], "voice": given[self.tab.voice]})


def render(tab: ChatTab, talk: Talk) -> Updates:
    """The conversation as it stands."""
    status = pieces.busy(talk.state) if talk.state else pieces.error_box(talk.error) if talk.error else ""
    return {
        tab.chatbot: [_message(turn.role, turn.content, turn.note) for turn in talk.turns],
        tab.status: status,
        tab.stop: gr.Button(visible=talk.busy),
        tab.again: gr.Button(interactive=bool(talk.turns) and not talk.answering),
        tab.send: gr.Button(interactive=not talk.answering),
    }


def _message(role: str, content: str, note: str) -> dict[str, Any]:
    shown = literal(content) or "…"
    return {"role": role, "content": f"{shown}\n\n<small>{note}</small>" if note else shown}


def literal(content: str) -> str:
    """Markdown in which HTML is shown as it was written, never run; code is left as it is."""
    parts = _CODE.split(content)
    return "".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def _file(context: Context) -> Any:
    return context.workspace.state / "chat.json"


def fill(tab: ChatTab, context: Context) -> Updates:
    """Menus, the last settings, and the conversation as it was left."""
    kept = read_json(_file(context)) or {}
    offered = choices.talkers(context.workspace)
    values = [value for _, value in offered]
    talker = kept.get("talker") if kept.get("talker") in values else next(iter(values), None)
    updates: Updates = {tab.settings[key]: kept[key] for key in tab.settings if key in kept}
    return {**updates, **render(tab, context.talk), tab.talker: gr.Dropdown(choices=offered, value=talker)}


def choose(tab: ChatTab, context: Context, run_id: str) -> Updates:
    """Talk to this run from now on."""
    offered = choices.talkers(context.workspace)
    return {tab.talker: gr.Dropdown(choices=offered, value=f"run:{run_id}"), tab.voice: "adapter"}


def tick(tab: ChatTab, context: Context, seen: dict[str, str]) -> Updates:
    """A reply that goes on while nobody watches it (after a reload), and runs that have become ready to talk to."""
    updates: Updates = {}
    version = str(context.talk.version)
    if seen.get("talk") != version:
        updates.update(render(tab, context.talk) if "talk" in seen else {})
        seen["talk"] = version
    ready = ",".join(run.id for run in list_runs(context.workspace) if run.has_adapter)
    if seen.get("talkers", ready) != ready:
        updates[tab.talker] = gr.Dropdown(choices=choices.talkers(context.workspace))
    seen["talkers"] = ready
    return updates
