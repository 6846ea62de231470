"""What stands on the Arena tab: the match, what is prepared and judged beside it, and the leaderboard."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.arena import html as arena_html
from app.arena.match import PREPARED, SHIPPED, TYPED
from app.chat.layout import top_p_slider
from core.arena.match import ITS_BASE
from core.arena.votes import CHOICES, KINDS

VOTES = {"left": "Left is better (1)", "right": "Right is better (2)", "tie": "Tie (3)", "both_bad": "Both bad (4)"}
WHOSE = dict(zip(KINDS, ("People", "Judge", "Imported"), strict=True))
SOURCES = {TYPED: "My own prompt", PREPARED: "Prepared replies", SHIPPED: "Nibble's prompts"}


@dataclass(frozen=True)
class ArenaLayout:
    """The components of the tab that events touch."""

    first: gr.Dropdown
    second: gr.Dropdown
    source: gr.Dropdown
    question: gr.Textbox
    go: gr.Button
    stop: gr.Button
    status: gr.HTML
    asked: gr.HTML
    to_train: gr.Button
    heads: tuple[gr.HTML, gr.HTML]
    replies: tuple[gr.Markdown, gr.Markdown]
    votes: dict[str, gr.Button]
    duel: gr.Column
    decided: gr.HTML
    settings: dict[str, Component]
    board: gr.HTML
    whose: gr.CheckboxGroup
    upload: gr.File
    export: gr.Button
    download: gr.DownloadButton
    exchanged: gr.HTML
    bulk_models: gr.Dropdown
    bulk_source: gr.Dropdown
    bulk: gr.Button
    bulk_stop: gr.Button
    bulk_message: gr.HTML
    judge: dict[str, gr.Textbox]
    judge_go: gr.Button
    judge_stop: gr.Button
    judge_message: gr.HTML

    def form(self) -> dict[str, Component]:
        """What is kept over a reload, by name. The judge's key is not."""
        return {
            "first": self.first,
            "second": self.second,
            "source": self.source,
            "bulk_voices": self.bulk_models,
            "bulk_source": self.bulk_source,
            "judge_url": self.judge["url"],
            "judge_model": self.judge["model"],
            **self.settings,
        }

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: the callback gets one dict of values by component."""
        return {*self.form().values(), self.question}

    def match(self) -> list[Component]:
        """What shows the present match."""
        replies = [*self.heads, *self.replies, *self.votes.values(), self.decided, self.duel]
        return [self.status, self.asked, *replies, self.stop, self.go]

    def watched(self) -> list[Component]:
        """What the tick brings up to date."""
        jobs = [self.bulk_message, self.bulk_stop, self.judge_message, self.judge_stop]
        menus = [self.first, self.second, self.source, self.bulk_models, self.bulk_source]
        return [*self.match(), self.to_train, self.board, *jobs, *menus]

    def filled(self) -> list[Component]:
        """What is set when the page is opened."""
        return [*self.form().values(), self.question, self.whose, *self.match()]


def build() -> ArenaLayout:
    """Lay the tab out."""
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="nb-arena"):
        with gr.Column(scale=10, min_width=320):
            _build_match(parts)
            with gr.Accordion("Generation settings", open=False):
                parts["settings"] = _build_settings()
            with gr.Accordion("Prepare replies and vote later", open=False):
                _build_bulk(parts)
            with gr.Accordion("LLM judge", open=False):
                _build_judge(parts)
        with gr.Column(scale=9, min_width=320):
            parts["board"] = gr.HTML(elem_classes="nb-slot")
            parts["whose"] = gr.CheckboxGroup(
                [(label, kind) for kind, label in WHOSE.items()],
                value=list(KINDS),
                label="Count votes by",
                elem_classes="nb-whose",
            )
            with gr.Accordion("Import and export votes (CSV)", open=False):
                _build_exchange(parts)
    return ArenaLayout(**parts)


def _slot(**how: Any) -> gr.HTML:
    return gr.HTML(elem_classes="nb-slot nb-said", **how)


def _build_match(parts: dict[str, Any]) -> None:
    with gr.Row(elem_classes="nb-who nb-arena-who"):
        parts["first"] = gr.Dropdown(label="Model A", choices=[], min_width=180)
        parts["second"] = gr.Dropdown(
            label="Model B", choices=[("Base model", ITS_BASE)], value=ITS_BASE, min_width=180
        )
        parts["source"] = gr.Dropdown(
            label="Prompts",
            choices=[(label, value) for value, label in SOURCES.items()],
            value=SHIPPED,
            min_width=180,
        )
    with gr.Row(elem_classes="nb-write"):
        parts["question"] = gr.Textbox(
            label="Prompt",
            placeholder="Write a prompt; Enter sends it to both models",
            lines=1,
            max_lines=6,
            scale=8,
            visible=False,
        )
        parts["go"] = gr.Button("Next prompt", variant="primary", scale=1, min_width=120, elem_id="nb-arena-go")
        parts["stop"] = gr.Button("Stop", variant="stop", visible=False, scale=1, min_width=90)
    parts["status"] = _slot()
    parts["asked"] = gr.HTML(arena_html.asked(None), elem_classes="nb-slot", js_on_load=arena_html.KEYS)
    parts["to_train"] = gr.Button(
        "Train your first adapter", variant="primary", visible=False, elem_classes="nb-narrow"
    )
    heads, replies = [], []
    with gr.Column(visible=False) as parts["duel"]:
        with gr.Row(elem_classes="nb-duel", equal_height=True):
            for _ in arena_html.SIDES:
                with gr.Column(min_width=240, elem_classes="nb-reply"):
                    heads.append(gr.HTML(elem_classes="nb-slot"))
                    replies.append(gr.Markdown(sanitize_html=True, line_breaks=True, elem_classes="nb-reply-text"))
        with gr.Row(elem_classes="nb-votes"):
            parts["votes"] = {
                choice: gr.Button(VOTES[choice], interactive=False, min_width=110, elem_id=f"nb-vote-{choice}")
                for choice in CHOICES
            }
        parts["decided"] = _slot()
    parts["heads"], parts["replies"] = tuple(heads), tuple(replies)


def _build_settings() -> dict[str, Component]:
    gr.HTML("Both models use these settings and the same seed.", elem_classes="nb-slot nb-muted")
    with gr.Group(elem_classes="nb-part"), gr.Row(elem_classes="nb-fields"):
        return {
            "greedy": gr.Checkbox(False, label="Greedy", info="Always pick the most likely token."),
            "temperature": gr.Slider(
                0.05,
                2,
                value=0.7,
                step=0.05,
                label="Temperature",
                info="Higher is more varied, lower is more predictable.",
            ),
            "top_p": top_p_slider(),
            "max_new_tokens": gr.Slider(
                8, 2048, value=256, step=8, label="Max new tokens", info="Maximum length of a reply."
            ),
            "system": gr.Textbox(
                label="System prompt", lines=2, placeholder="None", info="Sent to both models before the prompt."
            ),
        }


def _build_bulk(parts: dict[str, Any]) -> None:
    gr.HTML(
        "Each model replies to every prompt, even while this page is closed. You can stop and continue at any time. "
        "Then choose “Prepared replies” above and vote.",
        elem_classes="nb-slot nb-muted",
    )
    with gr.Group(elem_classes="nb-part"), gr.Row(elem_classes="nb-fields"):
        parts["bulk_models"] = gr.Dropdown(label="Models", choices=[], multiselect=True, min_width=220)
        parts["bulk_source"] = gr.Dropdown(
            label="Prompt set", choices=[(SOURCES[SHIPPED], SHIPPED)], value=SHIPPED, min_width=220
        )
    with gr.Row(elem_classes="nb-actions"):
        parts["bulk"] = gr.Button("Prepare replies", variant="primary")
        parts["bulk_stop"] = gr.Button("Stop preparing", variant="stop", visible=False)
    parts["bulk_message"] = _slot()


def _build_judge(parts: dict[str, Any]) -> None:
    gr.HTML(
        "A model behind an OpenAI-compatible endpoint compares the prepared replies, each pair in both orders, and "
        "votes. Prompts and replies are sent to that address. Its votes are marked as the judge's.",
        elem_classes="nb-slot nb-muted",
    )
    with gr.Group(elem_classes="nb-part"), gr.Row(elem_classes="nb-fields"):
        parts["judge"] = {
            "url": gr.Textbox(label="Address", placeholder="http://127.0.0.1:8000/v1", max_lines=1),
            "model": gr.Textbox(label="Model", placeholder="Model name at the endpoint", max_lines=1),
            "key": gr.Textbox(
                label="Key",
                type="password",
                placeholder="None",
                info="Not stored; sent only to that address.",
                max_lines=1,
            ),
        }
    with gr.Row(elem_classes="nb-actions"):
        parts["judge_go"] = gr.Button("Judge the prepared replies", variant="primary")
        parts["judge_stop"] = gr.Button("Stop judging", variant="stop", visible=False)
    parts["judge_message"] = _slot()


def _build_exchange(parts: dict[str, Any]) -> None:
    gr.HTML("One vote per row: <code>model_a,model_b,winner</code>.", elem_classes="nb-slot nb-muted")
    parts["upload"] = gr.File(
        label="Votes file", show_label=False, file_types=[".csv", ".tsv"], height=64, elem_classes="nb-drop"
    )
    with gr.Row(elem_classes="nb-actions"):
        parts["export"] = gr.Button("Export votes", size="sm")
        parts["download"] = gr.DownloadButton("Download", visible="hidden", elem_id="nb-arena-download")
    parts["exchanged"] = _slot()
