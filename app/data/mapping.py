"""Which column is what, by hand: the panel on the Data tab, and the mapping that stands on it."""

from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from core.settings import MappingSettings

COLUMNS = {
    "prompt": "Prompt",
    "context": "Context",
    "reply": "Reply",
    "system": "System prompt",
    "text": "Plain text",
    "turns": "List of turns",
    "conversation": "Conversation",
}
IN_A_TURN = {"role": "Speaker", "content": "Text of the turn"}
ROLES = {
    "user": "User names",
    "assistant": "Assistant names",
    "system": "System names",
    "tool": "Tool names",
    "leave out": "Names to ignore",
}
USUAL = {
    "prompt": ("prompt", "question", "instruction", "input", "query"),
    "reply": ("reply", "response", "output", "answer", "completion"),
    "system": ("system", "system_prompt"),
    "text": ("text", "content"),
    "role": ("role", "from", "speaker"),
    "content": ("content", "value", "text"),
}


class MappingPanel:
    """The dropdowns, and the row as it is read by them beside; `speakers` is unfolded where a name is not known."""

    def __init__(self) -> None:
        with gr.Group(visible=False, elem_classes="nb-part nb-mapping") as self.group:
            gr.HTML(
                "<h3>Map columns</h3><p class='nb-muted'>Choose one: a prompt and a reply; a list of turns; or plain "
                "text. If each row is one turn, choose the conversation, the speaker and the text. The row beside "
                "shows the result.</p>",
                elem_classes="nb-slot",
            )
            with gr.Row():
                with gr.Column(scale=1, min_width=260):
                    with gr.Row(elem_classes="nb-fields"):
                        self.fields = {key: _column(key, label) for key, label in {**COLUMNS, **IN_A_TURN}.items()}
                    with gr.Accordion("Speaker roles", open=False) as self.speakers, gr.Row(elem_classes="nb-fields"):
                        rare = "Only for names that are not recognised automatically."
                        gr.HTML(rare, elem_classes="nb-slot nb-muted")
                        self.roles = {role: _names(role, label) for role, label in ROLES.items()}
                with gr.Column(scale=1, min_width=260):
                    self.preview = gr.HTML(elem_classes="nb-slot nb-mapped")

    def inputs(self) -> set[Component]:
        """For an event's `inputs`."""
        return {*self.fields.values(), *self.roles.values()}

    def values(self, given: Mapping[Component, Any]) -> dict[str, Any]:
        """The mapping on the screen, as `data.mapping` of a recipe."""
        chosen: dict[str, Any] = {key: given[field] or None for key, field in self.fields.items()}
        chosen["roles"] = {name: role for role, field in self.roles.items() for name in given[field] or ()}
        return chosen

    def updates(self, mapping: Mapping[str, Any]) -> dict[Component, Any]:
        """What to put on the screen for this mapping."""
        shown: dict[Component, Any] = {field: mapping.get(key) for key, field in self.fields.items()}
        roles = mapping.get("roles") or {}
        for role, field in self.roles.items():
            shown[field] = [name for name, meant in roles.items() if meant == role]
        return shown

    def choices(self, state: Mapping[str, Any]) -> dict[Component, Any]:
        """What the dropdowns offer: the columns, the keys within turns, the speakers' names."""
        columns, speakers = state.get("columns") or (), list(state.get("speakers") or ())
        turn_columns = list(dict.fromkeys(key for keys in (state.get("turn_columns") or {}).values() for key in keys))
        offered: dict[Component, Any] = {self.fields[key]: gr.Dropdown(choices=["", *columns]) for key in COLUMNS}
        within = turn_columns or columns  # where each row is one turn, its keys are the columns
        offered.update({self.fields[key]: gr.Dropdown(choices=["", *within]) for key in IN_A_TURN})
        offered.update({field: gr.Dropdown(choices=speakers) for field in self.roles.values()})
        if "data.mapping.roles" in (state.get("error") or ""):
            offered[self.speakers] = gr.Accordion(open=True)
        return offered


def is_enough(mapping: Mapping[str, Any]) -> bool:
    """Whether a mapping says where something to learn is to be found."""
    pair = mapping["reply"] and (mapping["prompt"] or mapping["context"])
    a_turn = mapping["conversation"] and mapping["role"] and mapping["content"]
    return bool(mapping["turns"] or pair or mapping["text"] or a_turn)


def guess(state: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping to begin with: what core proposes, else from the names of the columns alone."""
    mapping = MappingSettings().model_dump()
    proposed = {**mapping, **{key: name for key, name in (state.get("mapping") or {}).items() if name}}
    if is_enough(proposed) or (proposed["role"] and proposed["content"]):  # of one turn a row, the rest is asked for
        return proposed
    for turns, keys in (state.get("turn_columns") or {}).items():
        return {**mapping, "turns": turns, **{key: _usual(key, keys) for key in IN_A_TURN}}
    columns = state.get("columns") or ()
    found = {key: _usual(key, columns) for key in ("prompt", "reply", "system")}
    return {**mapping, **found, "text": None if found["reply"] else _usual("text", columns)}


def _usual(key: str, names: Iterable[str]) -> str | None:
    plain = {name.lower(): name for name in names}
    return next((plain[name] for name in USUAL[key] if name in plain), None)


def _column(key: str, label: str) -> gr.Dropdown:
    help = str(MappingSettings.model_fields[key].description)
    return gr.Dropdown(choices=[""], value=None, label=label, info=help, allow_custom_value=True, min_width=130)


def _names(role: str, label: str) -> gr.Dropdown:
    return gr.Dropdown(choices=[], value=[], label=label, multiselect=True, allow_custom_value=True, min_width=150)
