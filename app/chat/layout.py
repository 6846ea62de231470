"""Chat: talk to a base, an adapter, a checkpoint; hear the same question answered by several; let others use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.chat.compare import MOST
from app.chat.events import ChatEvents, CompareEvents, kept_settings, voice_radio
from app.chat.view import Updates, render, render_sides
from app.context import Context
from app.ui import menus
from core.generation.sampling import RANGES
from core.runs.index import index_of
from core.runs.queue import at_work

EMPTY = "### Nothing said yet\nChoose what to talk to above, write a message below, and press Enter."
PRESS_DOWNLOAD = "() => setTimeout(() => document.querySelector('#nb-download-chat')?.click(), 300)"


@dataclass(frozen=True)
class ComparePart:
    """One question to several voices: the components of its own tab."""

    who: gr.Dropdown
    question: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    status: gr.HTML
    differs: gr.HTML
    columns: list[gr.Column]
    heads: list[gr.HTML]
    replies: list[gr.Markdown]

    def shown(self) -> list[Any]:
        """What changes while the replies come."""
        return [self.stop, self.ask, self.status, self.differs, *self.columns, *self.heads, *self.replies]


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
    undo: gr.Button
    clear: gr.Button
    to_data: gr.Button
    save: gr.Button
    download: gr.DownloadButton
    context: gr.HTML
    unload: gr.Button
    serve: gr.Button
    served: gr.HTML
    settings: dict[str, Component]
    compare: ComparePart

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: the callback gets one dict of values by component."""
        own = {self.talker, self.voice, self.message, self.compare.who, self.compare.question}
        return own | set(self.settings.values())

    def conversation(self) -> list[Any]:
        """What changes while a reply comes."""
        return [self.chatbot, self.status, self.stop, self.again, self.undo, self.send, self.to_data, self.context]

    def filled(self) -> list[Any]:
        """What is filled when the page is opened."""
        own = [self.voice, self.compare.question, self.serve, self.served]
        return [*own, *self.settings.values(), *self.watched()]

    def watched(self) -> list[Any]:
        """What changes by itself."""
        return [*self.conversation(), *self.compare.shown(), self.talker, self.compare.who]


def build() -> ChatTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="nb-chat"):
        with gr.Column(scale=7, min_width=540), gr.Tabs():
            with gr.Tab("Conversation"):
                parts = _build_conversation()
            with gr.Tab("Side by side"):
                compare = _build_compare()
        with gr.Column(scale=2, min_width=260):
            with gr.Accordion("How it answers", open=False):
                settings = _build_settings()
            with gr.Accordion("For other programs", open=False):
                served = gr.HTML(elem_classes="nb-slot")
                serve = gr.Button("Serve it", size="sm")
            unload = gr.Button("Free its memory", size="sm")
    return ChatTab(**parts, unload=unload, serve=serve, served=served, settings=settings, compare=compare)


def _build_conversation() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="nb-who"):
        parts["talker"] = gr.Dropdown(
            label="Talk to",
            info="A run, its best, a checkpoint, a base; or type the folder of an adapter.",
            choices=[],
            value=None,
            allow_custom_value=True,
            scale=2,
            min_width=220,
        )
        parts["voice"] = gr.Radio(
            [("Adapter", "adapter"), ("Base", "base")],
            value="adapter",
            label="Answers come from",
            info="The base is what was there before.",
            scale=1,
            min_width=230,
        )
    parts["status"] = gr.HTML(elem_classes="nb-slot")
    parts["chatbot"] = gr.Chatbot(
        label="Conversation",
        show_label=False,
        height="46vh",
        min_height=320,
        placeholder=EMPTY,
        editable="user",
        sanitize_html=True,
        allow_tags=False,
        feedback_options=None,
        buttons=["copy"],
        layout="bubble",
        elem_classes="nb-talk",
    )
    parts["context"] = gr.HTML(elem_classes="nb-slot")
    with gr.Row(elem_classes="nb-write"):
        parts["message"] = gr.Textbox(
            label="Message", placeholder="Write a message; Enter sends it", lines=1, max_lines=6, scale=8
        )
        parts["send"] = gr.Button("Send", variant="primary", scale=1, min_width=90)
    with gr.Row(elem_classes="nb-actions"):
        parts["stop"] = gr.Button("Stop", variant="stop", size="sm", visible=False)
        parts["again"] = gr.Button("Regenerate", size="sm", interactive=False)
        parts["undo"] = gr.Button("Undo", size="sm", interactive=False)
        parts["clear"] = gr.Button("Clear", size="sm")
        parts["to_data"] = gr.Button("Use as data", size="sm", interactive=False)
        parts["save"] = gr.Button("Download", size="sm")
        parts["download"] = gr.DownloadButton("Download", visible="hidden", elem_id="nb-download-chat")
    return parts


def _build_compare() -> ComparePart:
    who = gr.Dropdown(
        label="Who answers",
        info="Two to four; the same seed and settings for all.",
        choices=[],
        value=[],
        multiselect=True,
        max_choices=MOST,
    )
    with gr.Row(elem_classes="nb-write"):
        question = gr.Textbox(label="Question", placeholder="One question for all", lines=1, max_lines=6, scale=8)
        ask = gr.Button("Compare", variant="primary", scale=1, min_width=90, elem_id="nb-ask-all")
        stop = gr.Button("Stop", variant="stop", size="sm", visible=False)
    status = gr.HTML(elem_classes="nb-slot")
    columns, heads, replies = [], [], []
    with gr.Row(elem_classes="nb-sides"):
        for _ in range(MOST):
            with gr.Column(visible=False, min_width=200, elem_classes="nb-side-column") as column:
                heads.append(gr.HTML(elem_classes="nb-slot"))
                replies.append(gr.Markdown(elem_classes="nb-side-reply", sanitize_html=True))
            columns.append(column)
    differs = gr.HTML(elem_classes="nb-slot")
    return ComparePart(who, question, ask, stop, status, differs, columns, heads, replies)


def _build_settings() -> dict[str, Component]:
    low, high = RANGES["temperature"]
    penalty_low, penalty_high = RANGES["repetition_penalty"]
    return {
        "greedy": gr.Checkbox(
            False, label="Always the likeliest word", info="Greedy: the same question gets the same answer."
        ),
        "temperature": gr.Slider(
            low, high, value=0.7, step=0.05, label="Temperature", info="Higher is bolder, lower is safer; 0 is greedy."
        ),
        "top_p": gr.Slider(
            0.05, 1, value=0.9, step=0.05, label="Top-p", info="Draws only from the likeliest tokens of this share."
        ),
        "top_k": gr.Slider(0, 200, value=0, step=1, label="Top-k", info="Only from so many likeliest tokens; 0: off."),
        "repetition_penalty": gr.Slider(
            penalty_low,
            penalty_high,
            value=1,
            step=0.05,
            label="Repetition penalty",
            info="Above 1 what was said already becomes less likely; 1: off.",
        ),
        "max_new_tokens": gr.Slider(
            8, 2048, value=256, step=8, label="Length limit (tokens)", info="The reply ends there at the latest."
        ),
        "seed": gr.Textbox(
            label="Seed",
            lines=1,
            max_lines=1,
            placeholder="A new one each time",
            info="A whole number: the same one draws the same answer.",
        ),
        "stop": gr.Textbox(
            label="Stop texts", lines=2, placeholder="None", info="One a line: the reply ends before the first."
        ),
        "system": gr.Textbox(
            label="System prompt", lines=3, placeholder="None", info="Said to the model before the conversation."
        ),
    }


def wire(tab: ChatTab, context: Context) -> None:
    """Attach the tab's events."""
    events, quiet = ChatEvents(tab, context), {"show_progress": "hidden", "api_visibility": "private"}
    shown = [*tab.conversation(), tab.message]
    once: dict[str, Any] = {"trigger_mode": "once", **quiet}
    gr.on([tab.send.click, tab.message.submit], events.say, tab.inputs(), shown, **once)
    tab.again.click(events.regenerate, tab.inputs(), shown, **once)
    tab.chatbot.edit(events.edit, tab.inputs(), shown, **once)
    tab.undo.click(events.undo, None, shown, **once)
    tab.stop.click(context.talk.stop, None, None, queue=False, **quiet)
    gr.on([tab.clear.click, tab.chatbot.clear], events.clear, None, shown, **quiet)
    ready = tab.save.click(events.save, tab.inputs(), [tab.download, tab.status], **once)
    ready.success(None, None, None, js=PRESS_DOWNLOAD, **quiet)
    tab.unload.click(events.unload, None, tab.status, **quiet)
    tab.serve.click(events.serve, tab.inputs(), [tab.serve, tab.served], **once)
    kept = [tab.talker.input, tab.voice.input, tab.compare.who.input]
    kept += [component.input for component in tab.settings.values()]
    gr.on(kept, events.remember, tab.inputs(), None, trigger_mode="always_last", **quiet)
    tab.talker.change(voice_radio, tab.talker, tab.voice, **quiet)
    sides, part = CompareEvents(tab, context), tab.compare
    gr.on([part.ask.click, part.question.submit], sides.ask, tab.inputs(), part.shown(), **once)
    part.stop.click(context.sides.stop, None, None, queue=False, **quiet)


def fill(tab: ChatTab, context: Context) -> Updates:
    """Menus, the last settings, and the conversation as it was left."""
    kept = kept_settings(context)
    offered = menus.talkers(context.workspace)
    values = [value for _, value in offered]
    talker = kept.get("talker") if kept.get("talker") in values else next(iter(values), None)
    several = [key for key in kept.get("several") or [] if key in values] or _first_two(values)
    updates: Updates = {tab.settings[key]: kept[key] for key in tab.settings if key in kept}
    if context.sides.prompt:  # where there is none, somebody may have begun to write one
        updates[tab.compare.question] = context.sides.prompt
    return {
        **updates,
        **render(tab, context.talk),
        **render_sides(tab, context.sides),
        tab.talker: gr.Dropdown(choices=offered, value=talker),
        tab.voice: voice_radio(talker),
        tab.compare.who: gr.Dropdown(choices=offered, value=several),
        tab.serve: "Stop serving" if context.serving.serves else "Serve it",
        tab.served: context.serving.box(),
    }


def _first_two(values: list[str]) -> list[str]:
    """What is compared unless something else was chosen: the newest adapter and the first base."""
    runs = [value for value in values if value.startswith("run:")]
    return [*runs[:1], *[value for value in values if value.startswith("base:")][:1]] if runs else []


def choose(tab: ChatTab, context: Context, run_id: str) -> Updates:
    """Talk to this run from now on."""
    offered = menus.talkers(context.workspace)
    return {tab.talker: gr.Dropdown(choices=offered, value=f"run:{run_id}"), tab.voice: "adapter"}


def tick(tab: ChatTab, context: Context, seen: dict[str, str]) -> Updates:
    """Replies that go on while nobody watches them (after a reload), and what has become ready to talk to."""
    updates: Updates = {}
    for name, version, draw in (
        ("talk", context.talk.version, lambda: render(tab, context.talk)),
        ("sides", context.sides.version, lambda: render_sides(tab, context.sides)),
    ):
        if seen.get(name) != str(version):
            updates.update(draw() if name in seen else {})
            seen[name] = str(version)
    ready = _ready(context)
    if seen.get("talkers", ready) != ready:
        offered = menus.talkers(context.workspace)
        updates |= {tab.talker: gr.Dropdown(choices=offered), tab.compare.who: gr.Dropdown(choices=offered)}
    seen["talkers"] = ready
    return updates


def _ready(context: Context) -> str:
    """What would make the menu another one: runs with an adapter, and the checkpoints of the run at work."""
    runs = [row.run_id for row in index_of(context.workspace).rows(within_seconds=0.5) if row.has_adapter]
    run = at_work(context.workspace)
    steps = sorted(path.name for path in (run.dir / "checkpoints").glob("[0-9]*")) if run is not None else []
    return ",".join([*runs, *steps])
