"""The groups of a recipe's settings: each setting with its type, its range, and the sentence that explains it."""

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from core.text.dataset_address import plain_path, refusal_of
from core.text.encodings import is_encoding

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

    turns: str | None = Field(None, description="The column with the list of turns.")
    role: str | None = Field(None, description="Within a turn: the speaker.")
    content: str | None = Field(None, description="Within a turn: the text.")
    prompt: str | None = Field(None, description="The column with the prompt.")
    context: str | None = Field(None, description="The column with context for the prompt.")
    reply: str | None = Field(None, description="The column with the reply.")
    system: str | None = Field(None, description="The column with the system prompt.")
    text: str | None = Field(None, description="The column with plain text.")
    conversation: str | None = Field(
        None, description="If each row is one turn: the column that names its conversation."
    )
    roles: dict[str, Role] = Field(default_factory=dict, description="The role behind each speaker name in the file.")


class DataSettings(Settings):
    path: str = Field("pirate", description="A sample's name, a file, a folder of files, or a Hugging Face dataset id.")
    format: str = Field("auto", description="The layout of the rows. 'auto' detects it.")
    mapping: MappingSettings = Field(
        default_factory=MappingSettings, description="Column names, for the format 'mapping'."
    )
    encoding: str = Field(
        "auto",
        description="Text encoding of the file. 'auto' detects it; any encoding known to Python works.",
    )
    split: str | None = Field(
        None,
        description="Split of a Hugging Face dataset. Empty: 'train'. Its validation split is used for evaluation.",
    )
    config: str | None = Field(None, description="Configuration of a Hugging Face dataset.")
    named_splits: Literal["honour", "ignore"] = Field(
        "honour",
        description="If files or a column name splits: train on train, evaluate on validation, leave test out. Or "
        "train on all rows.",
    )
    train_on: Literal["replies", "last_reply", "everything"] = Field(
        "replies", description="What counts in the loss: all replies, only the last reply, or all tokens as in Guanaco."
    )
    template: Literal["auto", "guanaco", "chatml", "llama-2", "alpaca"] = Field(
        "auto",
        description="How a conversation becomes text. 'auto': the model's own template, or Guanaco's if it has none.",
    )
    generation_prompt: Literal["auto", "fitted", "continued"] = Field(
        "auto",
        description="For templates whose prompt ends in more than replies begin with, such as <think>: 'fitted' "
        "drops it, in chat and exports too; 'continued' trains replies after it.",
    )
    system: Literal["keep", "into_question", "leave_out"] = Field(
        "keep", description="What to do with system prompts, for models whose template does not support them."
    )
    join_turns: bool = Field(
        False,
        description="Merge consecutive turns of one speaker, separated by a blank line; some templates refuse them.",
    )
    max_length: int = Field(
        512,
        ge=16,
        le=131_072,
        description="Sequence length limit of a conversation; longer ones are truncated and counted.",
    )
    eval_fraction: float = Field(
        0.1,
        ge=0.0,
        le=0.5,
        description="Share of the rows held out for evaluation, if the data has no validation split of its own.",
    )
    eval_max_rows: int = Field(100, ge=1, le=10_000, description="Upper limit on the rows held out for evaluation.")

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        """Quotes around it and addresses of files and of the Hub are taken for what they mean."""
        path = plain_path(value)
        refused = refusal_of(path)
        if refused is not None:
            raise ValueError(f"data.path: {refused}")
        return path

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str) -> str:
        """One of ours, or any other that Python reads text by."""
        if value != "auto" and not is_encoding(value):
            raise ValueError(
                f"data.encoding: there is no text encoding called {value[:40]!r}; use one such as windows-1250, or auto"
            )
        return value


class LoraSettings(Settings):
    rank: int = Field(
        16, ge=1, le=512, description="Size of the adapter (r). A higher rank can learn more and takes more memory."
    )
    alpha: float = Field(
        16,
        gt=0,
        le=4096,
        description="Strength of the adapter: its output is scaled by alpha / rank.",
    )
    dropout: float = Field(
        0.0,
        ge=0.0,
        le=0.9,
        description="Share of the adapter's input dropped at random during training, against overfitting.",
    )
    scaling: Literal["standard", "rank_stabilised"] = Field(
        "standard",
        description="Divide alpha by the rank, or by its square root, which helps high ranks learn (rsLoRA).",
    )
    dora: bool = Field(
        False,
        description="Learn magnitude and direction of the weights separately. Often better at low ranks; slower.",
    )
    init: Literal["default", "pissa", "loftq"] = Field(
        "default",
        description="Zero (default), the principal components of the base weights (PiSSA, saved at twice the rank), "
        "or the quantisation error (LoftQ).",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        max_length=300,
        description="An existing adapter to continue training: adapter:<name>, run:<id> or run:<id>/best. Empty: a "
        "new one.",
    )
    targets: Literal["all-linear", "attention", "q_v"] | list[str] = Field(
        "all-linear",
        description="All linear layers but the head, the attention layers, or names such as q_proj, up_proj. Image "
        "towers get an adapter only where a name matches nothing else.",
    )
    extra_modules: list[str] = Field(
        default_factory=list,
        max_length=32,
        description="Trained in full and saved with the adapter: embeddings, head, or module names. For new tokens; "
        "takes a lot of memory.",
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
        description="Precision of the base model: 4 bits (QLoRA), 8 bits, or 16 bits (not quantised, plain LoRA).",
    )
    type: Literal["nf4", "fp4"] = Field(
        "nf4", description="4-bit format of the base model. NF4 is QLoRA's; FP4 is less precise."
    )
    double: bool = Field(
        True,
        description="Also quantise the quantisation constants; saves 0.37 bits per parameter. Applies to 4 bits only.",
    )


class TrainSettings(Settings):
    epochs: float | None = Field(
        3.0,
        gt=0,
        le=1000,
        description="Passes over the training data. Leave empty if Max steps is set.",
    )
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Stop after this many optimizer steps. Overrides the epochs."
    )
    learning_rate: float = Field(
        2e-4, gt=0, le=1.0, description="Peak learning rate of the optimizer. QLoRA used 0.0002."
    )
    effective_batch: int = Field(
        16, ge=1, le=4096, description="Conversations per optimizer step. Does not affect memory."
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Conversations per forward pass. Empty: chosen to be fast and to fit.",
    )
    schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = Field(
        "linear",
        description="How the learning rate changes during training: constant, with or without warmup, or decaying to "
        "zero.",
    )
    warmup_ratio: float = Field(
        0.03, ge=0.0, le=0.5, description="Share of the steps over which the learning rate rises."
    )
    optimizer: Optimizer = Field(
        "auto",
        description="'auto': AdamW, with 32-bit or 8-bit states depending on the budget. Paged: states move to CPU "
        "memory when the GPU is full. Lion needs a learning rate 3 to 10 times lower.",
    )
    beta2: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay rate of the second moment. Empty: 0.999 for AdamW, 0.99 for Lion.",
    )
    weight_decay: float = Field(0.0, ge=0.0, le=1.0, description="Pulls the adapter's weights towards zero.")
    max_grad_norm: float = Field(0.3, gt=0, le=1000, description="Gradients with a larger norm are clipped to this.")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto", description="Recompute activations in the backward pass: less memory, about a third slower."
    )
    neftune_alpha: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Noise added to the embeddings during training; 5 is common for chat. Empty: none.",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        "auto",
        description="Attention implementation. FlashAttention 2 needs its package and an NVIDIA GPU; 'eager' is slow.",
    )
    packing: Literal["auto", "off"] = Field(
        "auto",
        description="Pack several conversations into one row, if the model can keep them apart: faster, with the "
        "same result.",
    )
    fused_lora: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compute base and adapter in one pass. 'auto': on a CPU, and on a GPU where `bench train` has "
        "measured that it is faster.",
    )
    streamed_layers: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="Layers of the base that wait in CPU memory, or in a file without a GPU, and visit the device when "
        "they compute. Frees their memory, and takes time where micro-batches are small. Empty or 0: none.",
    )
    devices: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of GPUs to train on. Each holds the whole model and processes its share of every step.",
    )
    sharded: bool = Field(
        False,
        description="Shard the base model over the GPUs, for a model too large for one of them. Slower.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The same seed, data and machine reproduce the same run.")


class CheckpointSettings(Settings):
    every_steps: int | None = Field(
        None, ge=1, description="Save a checkpoint every this many steps. Empty: by time only."
    )
    every_minutes: float | None = Field(
        10.0, gt=0, le=10_000, description="Save a checkpoint every this many minutes. Empty: by steps only."
    )
    keep: int = Field(2, ge=1, le=100, description="Number of checkpoints to keep; the oldest is deleted first.")


class EvaluationSettings(Settings):
    times: int = Field(
        4, ge=1, le=1000, description="How many times, spread over the run, the evaluation loss is measured."
    )
    prompts: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="Prompts the model replies to at each evaluation, so that you can watch it learn.",
    )
    max_new_tokens: int = Field(64, ge=1, le=2048, description="Length limit of the sample replies, in tokens.")
    patience: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Stop early after this many evaluations in a row without improvement. Empty: never.",
    )


def _module_names(key: str, value: Any, allowed: str) -> list[str]:
    """A list of module names, or the text 'a, b'. Raises ValueError with the whole sentence."""
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(isinstance(n, str) and _MODULE_NAME.fullmatch(n) for n in names):
        return list(dict.fromkeys(names))
    raise ValueError(f"{key}: {value!r} is not valid; allowed: {allowed}")
