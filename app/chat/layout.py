"""What stands on the Chat tab: the conversation, the comparison, how to reply, and the endpoint."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.chat.compare import MOST
from app.ui.updates import Given
from core.generation.sampling import RANGES

EMPTY = "### No messages yet\nChoose a model above, write a message below, and press Enter."


@dataclass(frozen=True)
class CompareColumn:
    """One model's place in the comparison."""

    column: gr.Column
    head: gr.HTML
    reply: gr.Markdown


@dataclass(frozen=True)
class ComparePart:
    """One question to several models: the components of its own tab."""

    who: gr.Dropdown
    question: gr.Textbox
    ask: gr.Button
    stop: gr.Button
    status: gr.HTML
    differs: gr.HTML
    columns: list[CompareColumn]

    def shown(self) -> list[Any]:
        """What changes while the replies come."""
        places = [part for place in self.columns for part in (place.column, place.head, place.reply)]
        return [self.stop, self.ask, self.status, self.differs, *places]


@dataclass(frozen=True)
class ChatLayout:
    """The components of the tab that events touch."""

    model: gr.Dropdown
    answers_from: gr.Radio
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
        own = {self.model, self.answers_from, self.message, self.compare.who, self.compare.question}
        return own | set(self.settings.values())

    def values(self, given: Given) -> dict[str, Any]:
        """The settings on the screen, by name."""
        return {name: given[component] for name, component in self.settings.items()}

    def conversation(self) -> list[Any]:
        """What changes while a reply comes."""
        return [self.chatbot, self.status, self.stop, self.again, self.undo, self.send, self.to_data, self.context]

    def filled(self) -> list[Any]:
        """What is filled when the page is opened."""
        own = [self.answers_from, self.compare.question, self.serve, self.served]
        return [*own, *self.settings.values(), *self.watched()]

    def watched(self) -> list[Any]:
        """What changes by itself."""
        return [*self.conversation(), *self.compare.shown(), self.model, self.compare.who]


def build() -> ChatLayout:
    """Lay the tab out."""
    with gr.Row(elem_classes="nb-chat"):
        with gr.Column(scale=7, min_width=540), gr.Tabs():
            with gr.Tab("Conversation"):
                parts = _build_conversation()
            with gr.Tab("Side by side"):
                compare = _build_compare()
        with gr.Column(scale=2, min_width=260):
            with gr.Accordion("Generation settings", open=False):
                settings = _build_settings()
            with gr.Accordion("API for other programs", open=False):
                served = gr.HTML(elem_classes="nb-slot")
                serve = gr.Button("Start the API", size="sm")
            unload = gr.Button("Unload model", size="sm")
    return ChatLayout(**parts, unload=unload, serve=serve, served=served, settings=settings, compare=compare)


def _build_conversation() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="nb-who"):
        parts["model"] = gr.Dropdown(
            label="Chat model",
            info="A run, its best adapter, a checkpoint or a base model; or type the folder of an adapter.",
            choices=[],
            value=None,
            allow_custom_value=True,
            scale=2,
            min_width=220,
        )
        parts["answers_from"] = gr.Radio(
            [("Adapter", "adapter"), ("Base", "base")],
            value="adapter",
            label="Reply from",
            info="The base model is the model without the adapter.",
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
        parts["to_data"] = gr.Button("Use as dataset", size="sm", interactive=False)
        parts["save"] = gr.Button("Download", size="sm")
        parts["download"] = gr.DownloadButton("Download", visible="hidden", elem_id="nb-download-chat")
    return parts


def _build_compare() -> ComparePart:
    who = gr.Dropdown(
        label="Models",
        info="Two to four; all use the same seed and settings.",
        choices=[],
        value=[],
        multiselect=True,
        max_choices=MOST,
    )
    with gr.Row(elem_classes="nb-write"):
        question = gr.Textbox(label="Prompt", placeholder="One prompt for all models", lines=1, max_lines=6, scale=8)
        ask = gr.Button("Compare", variant="primary", scale=1, min_width=90, elem_id="nb-ask-all")
        stop = gr.Button("Stop", variant="stop", size="sm", visible=False)
    status = gr.HTML(elem_classes="nb-slot")
    columns = []
    with gr.Row(elem_classes="nb-sides"):
        for _ in range(MOST):
            with gr.Column(visible=False, min_width=200, elem_classes="nb-side-column") as column:
                head = gr.HTML(elem_classes="nb-slot")
                reply = gr.Markdown(elem_classes="nb-side-reply", sanitize_html=True)
            columns.append(CompareColumn(column, head, reply))
    differs = gr.HTML(elem_classes="nb-slot")
    return ComparePart(who, question, ask, stop, status, differs, columns)


def top_p_slider() -> gr.Slider:
    """For the share of the probability that is sampled from."""
    info = "Sample from the most likely tokens that add up to this probability."
    return gr.Slider(0.05, 1, value=0.9, step=0.05, label="Top-p", info=info)


def _build_settings() -> dict[str, Component]:
    low, high = RANGES["temperature"]
    penalty_low, penalty_high = RANGES["repetition_penalty"]
    return {
        "greedy": gr.Checkbox(
            False, label="Greedy", info="Always pick the most likely token: the same prompt gets the same reply."
        ),
        "temperature": gr.Slider(
            low,
            high,
            value=0.7,
            step=0.05,
            label="Temperature",
            info="Higher is more varied, lower is more predictable; 0 is greedy.",
        ),
        "top_p": top_p_slider(),
        "top_k": gr.Slider(
            0, 200, value=0, step=1, label="Top-k", info="Sample from this many most likely tokens; 0 turns it off."
        ),
        "repetition_penalty": gr.Slider(
            penalty_low,
            penalty_high,
            value=1,
            step=0.05,
            label="Repetition penalty",
            info="Above 1 makes repetition less likely; 1 turns it off.",
        ),
        "max_new_tokens": gr.Slider(
            8, 2048, value=256, step=8, label="Max new tokens", info="Maximum length of a reply."
        ),
        "seed": gr.Textbox(
            label="Seed",
            lines=1,
            max_lines=1,
            placeholder="Random",
            info="A whole number. The same seed gives the same reply.",
        ),
        "stop": gr.Textbox(
            label="Stop sequences",
            lines=2,
            placeholder="None",
            info="One per line. The reply ends before the first one that appears.",
        ),
        "system": gr.Textbox(
            label="System prompt", lines=3, placeholder="None", info="Sent to the model before the conversation."
        ),
    }
