"""The settings on the screen: a component for each key of a recipe, read into a recipe and filled from one.

The recipe knows the limits and the help; nothing of either is repeated here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.components import Component

from app.ui.html import error_box, fault_box
from core.data.formats.layouts import FORMATS
from core.errors import NibbleError
from core.memory.budget import Budget
from core.recipe import Recipe, help_text, make_recipe
from core.sizes import GIB
from core.step.optimizer import OPTIMIZERS
from core.system.hardware import device
from core.text.encodings import ENCODINGS
from core.workspace import read_json, write_json

# 'names': one of the recipe's own words, or names with commas between them. 'menu': what there is, or nothing.
Kind = Literal["integer", "number", "choice", "switch", "text", "lines", "names", "menu"]


@dataclass(frozen=True)
class Field:
    """One setting: the recipe's key and its label on the screen."""

    key: str
    label: str
    kind: Kind = "number"


QUICK = (
    Field("lora.rank", "Rank", "integer"),
    Field("lora.alpha", "Alpha"),
    Field("budget", "Memory budget"),
)
ADVANCED: dict[str, tuple[Field, ...]] = {
    "Adapter": (
        Field("lora.start_from", "Start from", "menu"),
        Field("lora.targets", "Target modules", "names"),
        Field("lora.scaling", "Scaling", "choice"),
        Field("lora.init", "LoRA init", "choice"),
        Field("lora.dropout", "Dropout"),
        Field("lora.extra_modules", "Fully trained modules", "names"),
        Field("lora.dora", "DoRA", "switch"),
    ),
    "Base model": (
        Field("quantization.bits", "Bits", "choice"),
        Field("quantization.type", "4-bit type", "choice"),
        Field("train.attention", "Attention", "choice"),
        Field("quantization.double", "Double quantisation", "switch"),
    ),
    "Schedule": (
        Field("train.epochs", "Epochs"),
        Field("train.max_steps", "Max steps", "integer"),
        Field("train.effective_batch", "Effective batch size", "integer"),
        Field("train.learning_rate", "Learning rate"),
        Field("train.schedule", "LR schedule", "choice"),
        Field("train.warmup_ratio", "Warmup ratio"),
    ),
    "Optimizer": (
        Field("train.optimizer", "Optimizer", "choice"),
        Field("train.beta2", "Adam beta 2"),
        Field("train.weight_decay", "Weight decay"),
        Field("train.max_grad_norm", "Max grad norm"),
        Field("train.neftune_alpha", "NEFTune alpha"),
        Field("train.seed", "Seed", "integer"),
    ),
    "Speed and memory": (
        Field("train.micro_batch", "Micro-batch", "integer"),
        Field("train.gradient_checkpointing", "Gradient checkpointing", "choice"),
        Field("train.packing", "Packing", "choice"),
        Field("train.fused_lora", "Fused LoRA layer", "choice"),
        Field("train.streamed_layers", "Streamed layers", "integer"),
        Field("train.devices", "GPUs", "integer"),
        Field("train.sharded", "Shard the model (FSDP)", "switch"),
    ),
    "Data": (
        Field("data.max_length", "Max length (tokens)", "integer"),
        Field("data.train_on", "Train on", "choice"),
        Field("data.template", "Chat template", "choice"),
        Field("data.generation_prompt", "Generation prompt", "choice"),
        Field("data.system", "System prompts", "choice"),
        Field("data.join_turns", "Merge consecutive turns", "switch"),
        Field("data.format", "Format", "choice"),
        Field("data.encoding", "Encoding", "names"),
        Field("data.split", "Split", "text"),
        Field("data.config", "Configuration", "text"),
        Field("data.named_splits", "Named splits", "choice"),
        Field("data.eval_fraction", "Validation split"),
        Field("data.eval_max_rows", "Max validation rows", "integer"),
    ),
    "Checkpoints and evaluation": (
        Field("name", "Run name", "text"),
        Field("checkpoint.every_minutes", "Save every (minutes)"),
        Field("checkpoint.every_steps", "Save every (steps)", "integer"),
        Field("checkpoint.keep", "Checkpoints to keep", "integer"),
        Field("evaluation.times", "Evaluations", "integer"),
        Field("evaluation.patience", "Early stopping patience", "integer"),
        Field("evaluation.max_new_tokens", "Max new tokens", "integer"),
        Field("evaluation.prompts", "Sample prompts", "lines"),
    ),
}
FIELDS = {field.key: field for fields in (QUICK, *ADVANCED.values()) for field in fields}
# Texts that may be left empty, which the recipe calls None.
EMPTY_IS_NONE = {"name", "data.split", "data.config", "lora.start_from"}
WORDS: dict[str, dict[Any, str]] = {
    "lora.targets": {
        "all-linear": "All linear layers",
        "attention": "Attention layers",
        "q_v": "Query and value (q, v)",
    },
    "lora.scaling": {"standard": "Alpha / rank", "rank_stabilised": "Alpha / √rank (rsLoRA)"},
    "lora.init": {
        "default": "Default",
        "pissa": "PiSSA",
        "loftq": "LoftQ",
    },
    "quantization.bits": {4: "4 (QLoRA)", 8: "8 (LLM.int8)", 16: "16 (plain LoRA)"},
    "quantization.type": {"nf4": "NF4", "fp4": "FP4"},
    "train.optimizer": {"auto": "Auto", **{each.name: each.label for each in OPTIMIZERS.values()}},
    "train.schedule": {
        "constant": "Constant",
        "constant_with_warmup": "Constant with warmup",
        "linear": "Linear decay",
        "cosine": "Cosine decay",
    },
    "train.attention": {
        "auto": "Auto",
        "sdpa": "SDPA (PyTorch)",
        "eager": "Eager",
        "flash_attention_2": "FlashAttention 2",
    },
    "train.packing": {"auto": "Auto", "off": "Off"},
    "train.fused_lora": {"auto": "Auto", "on": "On", "off": "Off"},
    "train.gradient_checkpointing": {"auto": "Auto", "on": "On", "off": "Off"},
    "data.format": FORMATS,
    "data.encoding": {"auto": "Auto (detect)", **{each.name: each.label for each in ENCODINGS}},
    "data.named_splits": {
        "honour": "Use the named splits",
        "ignore": "Train on all rows",
    },
    "data.train_on": {
        "replies": "All replies",
        "last_reply": "Last reply only",
        "everything": "All tokens",
    },
    "data.template": {
        "auto": "Auto (the model's own)",
        "guanaco": "Guanaco",
        "chatml": "ChatML",
        "llama-2": "Llama 2",
        "alpaca": "Alpaca",
    },
    "data.generation_prompt": {
        "auto": "Auto (fit to the replies)",
        "fitted": "Fit to the replies",
        "continued": "Keep, continue from it",
    },
    "data.system": {
        "keep": "Keep",
        "into_question": "Prepend to the prompt",
        "leave_out": "Leave out",
    },
}


@dataclass(frozen=True)
class Form:
    """The components by the recipe's dotted keys. `budget` is a slider in GiB; `data.mapping` is not to be seen."""

    fields: dict[str, Component]

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: its callback then gets one dict of values by component."""
        return set(self.fields.values())

    def values(self, given: Mapping[Component, Any]) -> dict[str, Any]:
        """What stands on the screen, by key, as `make_recipe` takes it."""
        values = {key: given[component] for key, component in self.fields.items()}
        values["evaluation.prompts"] = [line.strip() for line in (values["evaluation.prompts"] or "").splitlines()]
        values["evaluation.prompts"] = [line for line in values["evaluation.prompts"] if line]
        values["budget"] = None if values["budget"] is None else f"{values['budget']:g}GiB"
        for key in EMPTY_IS_NONE:
            values[key] = (values[key] or "").strip() or None
        values["model"] = (values["model"] or "").strip()
        values["data.path"] = (values["data.path"] or "").strip()
        return values

    def keep(self, file: Path, values: Mapping[str, Any]) -> None:
        """Keep in `file` what was set, so that a reload finds it again; what no recipe could have stays as it was."""
        write_json(file, {**(read_json(file) or {}), **possible(values)})

    def updates(self, values: Mapping[str, Any]) -> dict[Component, Any]:
        """What to put on the screen for these values by key; keys that are no field are left out."""
        return {component: _shown(key, values[key]) for key, component in self.fields.items() if key in values}


def _shown(key: str, value: Any) -> Any:
    if key == "evaluation.prompts":
        return "\n".join(value)
    if key == "budget":
        return gib(value)
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None and key in EMPTY_IS_NONE else value


def gib(budget: str | None) -> Any:
    """A recipe's budget as the slider shows it; where there is none the slider stays as it is."""
    if budget is None or not any(digit in budget for digit in "123456789"):  # 0 was on the slider once
        return gr.skip()
    here = device()
    return round(Budget.of(budget, here.total_bytes, here.free_bytes).bytes / GIB, 2)


def possible(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that a recipe could have, each by itself where they are not possible together."""
    if _is_possible(values):
        return dict(values)
    return {key: value for key, value in values.items() if _is_possible({key: value})}


def _is_possible(values: Mapping[str, Any]) -> bool:
    try:
        make_recipe(dict(values))
    except NibbleError:
        return False
    return True


def flat(recipe: Recipe) -> dict[str, Any]:
    """A recipe's settings by dotted key."""
    values: dict[str, Any] = {}
    for key, value in recipe.model_dump().items():
        if isinstance(value, dict):
            values.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            values[key] = value
    return values


DEFAULTS = flat(Recipe())
# How a dataset is read until somebody corrects it by hand, which counts for that dataset only.
AS_RECOGNISED = {
    key: DEFAULTS[key]
    for key in (
        *("data.format", "data.mapping", "data.encoding", "data.split", "data.config"),
        *("data.named_splits", "data.join_turns"),
    )
}


def build_field(field: Field) -> Component:
    """The component of one setting, with its help under it."""
    shared: dict[str, Any] = {"label": field.label, "info": help_text(field.key), "min_width": 180}
    default = DEFAULTS[field.key]
    if field.key in WORDS:
        offered: list[tuple[str, Any]] = [(words, value) for value, words in WORDS[field.key].items()]
        return gr.Dropdown(choices=offered, value=default, allow_custom_value=field.kind == "names", **shared)
    if field.kind == "names":
        return gr.Textbox(value="", max_lines=1, placeholder="embeddings, head", **shared)
    if field.kind == "menu":
        return gr.Dropdown(choices=[("", "")], value="", allow_custom_value=True, **shared)
    if field.kind == "switch":
        return gr.Checkbox(value=default, **shared)
    if field.kind == "text":
        return gr.Textbox(value=default or "", max_lines=1, **shared)
    if field.kind == "lines":
        return gr.Textbox(
            value="\n".join(default), lines=3, placeholder="One prompt per line", elem_classes="nb-wide", **shared
        )
    # No minimum here: out of range is refused by the recipe, in one sentence beside the Start button.
    return gr.Number(value=default, precision=0 if field.kind == "integer" else None, **shared)


def build_menu(label: str, key: str) -> gr.Dropdown:
    """The menu of base models or of datasets, which also takes what is typed."""
    return gr.Dropdown(label=label, info=help_text(key), allow_custom_value=True, value=DEFAULTS[key])


def build_advanced() -> dict[str, Component]:
    """Every setting that is not on the quick form, in groups."""
    made: dict[str, Component] = {}
    for title, fields in ADVANCED.items():
        gr.HTML(f'<h4 class="nb-group">{title}</h4>', elem_classes="nb-slot")
        with gr.Row(elem_classes="nb-fields"):
            made.update({field.key: build_field(field) for field in fields})
    return made


_LABELS = {key: field.label for key, field in FIELDS.items()} | {"data.mapping.roles": "Speaker roles"}
_DOTTED = "|".join(rf"\b{re.escape(key)}\b" for key in sorted(_LABELS, key=len, reverse=True) if "." in key)
# A setting, and the value that a sentence gives to it: 'set data.named_splits to ignore'.
_KEYS = re.compile(rf"({_DOTTED}|^budget(?=:))(?:( to | is )([a-z0-9_-]+)\b)?")
_FORMAT = re.compile(r"\b(choose the format |format: )([a-z-]+)\b")


def on_screen(key: str, value: Any) -> tuple[str, str]:
    """A setting's name and its value as the screen calls them, by its dotted key."""
    name = _LABELS.get(key) or {"model": "Base model", "data.path": "Dataset"}.get(key, key)
    if value is None or value in ("", []):
        return name, "–"
    if isinstance(value, bool):
        return name, "on" if value else "off"
    if isinstance(value, list):
        return name, ", ".join(str(each) for each in value)
    shown = WORDS.get(key, {}).get(value, value) if isinstance(value, (str, int)) else value
    return name, f"{shown:g}" if isinstance(shown, float) else str(shown)


def explain(error: Exception) -> str:
    """The error as HTML for beside the form, each setting called as on the screen: 'Rank (lora.rank): …'."""
    return error_box(as_on_screen(str(error))) if isinstance(error, NibbleError) else fault_box(error)


def as_on_screen(sentence: str) -> str:
    """`sentence` with each setting and choice called as on the screen: 'Rank (lora.rank)', 'format: Plain text'."""
    return _FORMAT.sub(_format_on_screen, _KEYS.sub(_key_on_screen, sentence))


def _key_on_screen(found: re.Match[str]) -> str:
    key, between, value = found[1], found[2] or "", found[3] or ""
    words = WORDS.get(key, {})
    return f"{_LABELS[key]} ({key}){between}" + (f"“{words[value]}”" if value in words else value)


def _format_on_screen(found: re.Match[str]) -> str:
    words = WORDS["data.format"]
    return f"{found[1]}“{words[found[2]]}”" if found[2] in words else found[0]
