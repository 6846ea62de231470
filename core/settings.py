"""The groups of a recipe's settings: each setting with its type, its range, and the sentence that explains it."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Role = Literal["system", "user", "assistant", "tool", "leave out"]
Optimizer = Literal["auto", "paged_adamw_32bit", "paged_adamw_8bit", "paged_lion_32bit", "paged_lion_8bit", "adamw"]
# What `lora.targets` may be instead of a list of names.
TARGETS = ("all-linear", "attention", "q_v")
_MODULE_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)


class Settings(BaseModel):
    """Unknown keys are refused, and so is what is out of range, now and when a setting is changed later."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _switches_are_words(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads a bare `on` or `off` as true or false; where the setting knows them as words, they are words."""
        words = get_args(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and "off" in words:
            return "on" if value else "off"
        return value


class MappingSettings(Settings):
    """Which column is what, by hand, where `data.format` is 'mapping': `turns`, `reply`, `text` or `conversation`."""

    turns: str | None = Field(None, description="The column that holds a list of turns.")
    role: str | None = Field(None, description="In a turn: who speaks.")
    content: str | None = Field(None, description="In a turn: what is said.")
    prompt: str | None = Field(None, description="The column with the question.")
    context: str | None = Field(None, description="The column with what the question refers to.")
    reply: str | None = Field(None, description="The column with the reply to learn.")
    system: str | None = Field(None, description="The column with the system prompt.")
    text: str | None = Field(None, description="The column with plain text.")
    conversation: str | None = Field(
        None, description="Where each row is one turn: the column that says which conversation it belongs to."
    )
    roles: dict[str, Role] = Field(default_factory=dict, description="What the file's own names for speakers mean.")


class DataSettings(Settings):
    path: str = Field("pirate", description="A sample's name, a file, a folder of files, or a Hugging Face dataset id.")
    format: str = Field("auto", description="How the rows are laid out. 'auto' looks at them.")
    mapping: MappingSettings = Field(
        default_factory=MappingSettings, description="Which column is what, where the format is 'mapping'."
    )
    encoding: str = Field(
        "auto",
        description="How the file's letters are stored. 'auto' looks at them. Or any encoding that Python knows.",
    )
    split: str | None = Field(
        None, description="Of a Hugging Face dataset: which split. Empty: 'train'. Its validation split is held out."
    )
    config: str | None = Field(None, description="Of a Hugging Face dataset: which configuration.")
    named_splits: Literal["honour", "ignore"] = Field(
        "honour",
        description="Where files or a column are named train, validation, test: train is trained on, validation held "
        "out, test left alone. Or all are trained on.",
    )
    train_on: Literal["replies", "last_reply", "everything"] = Field(
        "replies", description="What counts in the loss: the replies, only the last one, or every token as Guanaco did."
    )
    template: Literal["auto", "guanaco", "chatml", "llama-2", "alpaca"] = Field(
        "auto", description="How a conversation becomes text. 'auto': the model's own, or Guanaco's where it has none."
    )
    generation_prompt: Literal["auto", "fitted", "continued"] = Field(
        "auto",
        description="Where the template asks with more than replies begin with, such as <think>: 'fitted' cuts that "
        "off, in chat and exports; 'continued' learns replies behind it.",
    )
    system: Literal["keep", "into_question", "leave_out"] = Field(
        "keep", description="What becomes of system prompts; for models whose template cannot carry one."
    )
    join_turns: bool = Field(
        False,
        description="Join turns of one speaker in a row into one, a blank line between; some templates refuse them.",
    )
    max_length: int = Field(
        512,
        ge=16,
        le=131_072,
        description="Tokens a conversation may have; what is longer is cut, and counted.",
    )
    eval_fraction: float = Field(
        0.1,
        ge=0.0,
        le=0.5,
        description="Share of the rows held out to measure the loss by, where the data has no validation split.",
    )
    eval_max_rows: int = Field(100, ge=1, le=10_000, description="At most this many rows are held out.")

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        """Quotes around it and addresses of files and of the Hub are taken for what they mean."""
        from core.text.dataset_address import plain_path, refusal_of

        path = plain_path(value)
        refused = refusal_of(path)
        if refused is not None:
            raise ValueError(f"data.path: {refused}")
        return path

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str) -> str:
        """One of ours, or any other that Python reads text by."""
        from core.text.encodings import is_encoding

        if value != "auto" and not is_encoding(value):
            raise ValueError(
                f"data.encoding: no encoding of text is called {value[:40]!r}; windows-1250 is one, or auto"
            )
        return value


class LoraSettings(Settings):
    rank: int = Field(
        16, ge=1, le=512, description="Size of the adapter (r). More can hold more and takes more memory."
    )
    alpha: float = Field(
        16,
        gt=0,
        le=4096,
        description="How strongly the adapter speaks: its output is scaled by alpha / rank.",
    )
    dropout: float = Field(
        0.0,
        ge=0.0,
        le=0.9,
        description="Share of the adapter's input dropped at random; helps against overfitting.",
    )
    scaling: Literal["standard", "rank_stabilised"] = Field(
        "standard",
        description="What alpha is divided by: the rank, or its root, which keeps high ranks learning (rsLoRA).",
    )
    dora: bool = Field(
        False,
        description="Learn each output's size apart from its direction. Often better at low ranks; slower.",
    )
    init: Literal["default", "pissa", "loftq"] = Field(
        "default",
        description="Nothing; the base's main directions (PiSSA, saved at twice the rank); what 4 bits lost (LoftQ).",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        max_length=300,
        description="An adapter that is trained further as it is: adapter:<name>, run:<id>, run:<id>/best. Empty: a "
        "fresh one.",
    )
    targets: Literal["all-linear", "attention", "q_v"] | list[str] = Field(
        "all-linear",
        description="All linear ones but the head, attention's, or names such as q_proj, up_proj: of those that text "
        "reaches. A tower for pictures gets an adapter only where a name means nothing else.",
    )
    extra_modules: list[str] = Field(
        default_factory=list,
        max_length=32,
        description="Saved with the adapter: embeddings, head, or names. For new tokens; takes much memory.",
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _targets_are_known_or_named(cls, value: Any) -> Any:
        return value if value in TARGETS else _module_names("lora.targets", value, f"{', '.join(TARGETS)}, or names")

    @field_validator("extra_modules", mode="before")
    @classmethod
    def _modules_are_named(cls, value: Any) -> Any:
        return _module_names("lora.extra_modules", value, "embeddings, head, or names") if value else []


class QuantizationSettings(Settings):
    bits: Literal[4, 8, 16] = Field(
        4,
        description="How the base model is held: in 4 bits (QLoRA), 8, or 16: not quantised, plain LoRA.",
    )
    type: Literal["nf4", "fp4"] = Field(
        "nf4", description="The 4-bit number format of the base model. NF4 is QLoRA's; FP4 is less exact."
    )
    double: bool = Field(
        True,
        description="Quantise the quantisation constants too: saves 0.37 bits a parameter. Counts with 4 bits only.",
    )


class TrainSettings(Settings):
    epochs: float | None = Field(
        3.0,
        gt=0,
        le=1000,
        description="Times to go through the data. Left empty where a number of steps is set.",
    )
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Stop after so many optimizer steps, whatever the epochs."
    )
    learning_rate: float = Field(2e-4, gt=0, le=1.0, description="Size of an optimizer step. QLoRA used 0.0002.")
    effective_batch: int = Field(
        16, ge=1, le=4096, description="Conversations an optimizer step. Memory does not depend on it."
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Conversations at once on the device. Empty: chosen to be fast and fit.",
    )
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "linear",
        description="How the learning rate goes on: level (without or with a warm-up), or down to zero.",
    )
    warmup_ratio: float = Field(0.03, ge=0.0, le=0.5, description="Share of the steps in which the rate rises.")
    optimizer: Optimizer = Field(
        "auto",
        description="'auto': AdamW, in 32 bits or 8, as the budget allows. Paged: its states leave a full GPU. "
        "Lion wants a rate 3 to 10 times smaller.",
    )
    beta2: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="How long gradients are remembered. Empty: AdamW's own 0.999, or Lion's 0.99.",
    )
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="Pulls the adapter's weights to zero.")
    max_grad_norm: float = Field(0.3, gt=0, le=1000, description="Gradients longer than this are shortened to it.")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Recompute activations in the backward pass: less memory, about a third slower."
    )
    neftune_alpha: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Noise on the embeddings while training; 5 is usual, for chat. Empty: none.",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="How it is computed. FlashAttention 2 needs its package and an NVIDIA GPU; 'eager' is slow.",
    )
    packing: Literal["auto", "off"] = Field(
        "auto",
        description="Conversations of a step share rows where the model keeps them apart: faster, the same result.",
    )
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description="GPUs to train on at once. Each holds the whole model and takes its share of every step.",
    )
    sharded: bool = Field(
        False,
        description="Deal the base's weights out to the devices, for a model that none of them holds alone. Slower.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed, data and machine give the same run.")


class CheckpointSettings(Settings):
    every_steps: int | None = Field(None, ge=1, description="Save after so many steps. Empty: by time only.")
    every_minutes: float | None = Field(
        10.0, gt=0, le=10_000, description="Save after so many minutes. Empty: by steps only."
    )
    keep: int = Field(2, ge=1, le=100, description="How many checkpoints are kept; the oldest goes first.")


class EvaluationSettings(Settings):
    times: int = Field(4, ge=1, le=1000, description="How often, spread over the run, the held-out loss is measured.")
    prompts: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="Questions the model is asked at each evaluation, so that one sees it learn.",
    )
    max_new_tokens: int = Field(64, ge=1, le=2048, description="Length limit of those answers, in tokens.")
    patience: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Stop early after so many evaluations in a row that brought nothing better. Empty: never.",
    )


def _module_names(key: str, value: Any, allowed: str) -> list[str]:
    """A list of module names, or the text 'a, b'. Raises ValueError with the whole sentence."""
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(isinstance(n, str) and _MODULE_NAME.fullmatch(n) for n in names):
        return list(dict.fromkeys(names))
    raise ValueError(f"{key}: {value!r} is not possible; allowed: {allowed}")
