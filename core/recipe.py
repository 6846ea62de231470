"""Recipe: every setting of a run, read from a file or a form, validated; what is refused is said in a sentence."""

from __future__ import annotations

import copy
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from core.data.formats.layouts import FORMATS
from core.errors import RecipeError
from core.settings import (
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    QuantizationSettings,
    Settings,
    TrainSettings,
)
from core.text.library_errors import telling_line
from core.workspace import PRESETS, as_path


class Recipe(Settings):
    """Every setting of a run. Unknown keys are refused; so is what contradicts something else."""

    version: Literal[1] = Field(1, description="Version of the recipe's format.")
    name: str | None = Field(None, max_length=80, description="The run's name.")
    model: str = Field("starter", min_length=1, description="A preset's name, a folder, or a Hugging Face id.")
    budget: str | None = Field(
        None, description="Memory the run may use: 8GiB, 8GB or 80%. A bare number is in GiB. Empty: all free memory."
    )
    data: DataSettings = Field(default_factory=DataSettings)
    lora: LoraSettings = Field(default_factory=LoraSettings)
    quantization: QuantizationSettings = Field(default_factory=QuantizationSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_sizes(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("budget"), (int, float)):
            values = {**values, "budget": str(values["budget"])}
        return values

    @field_validator("data")
    @classmethod
    def _layout_is_known(cls, data: DataSettings) -> DataSettings:
        if data.format not in FORMATS:
            *others, last = map(repr, FORMATS)
            raise ValueError(f"data.format: {data.format!r} is not valid; allowed: {', '.join(others)} or {last}")
        return data

    @model_validator(mode="after")
    def _no_contradiction(self) -> Recipe:
        train, checkpoint = self.train, self.checkpoint
        if train.epochs is None and train.max_steps is None:
            raise ValueError("train.epochs and train.max_steps are both empty; set one of them")
        if train.micro_batch is not None and train.effective_batch % train.micro_batch:
            raise ValueError(
                f"train.micro_batch {train.micro_batch} does not divide train.effective_batch "
                f"{train.effective_batch}; allowed: its divisors"
            )
        if train.sharded and train.effective_batch % train.devices:
            raise ValueError(
                f"train.sharded needs equal shares, but train.devices {train.devices} does not divide "
                f"train.effective_batch {train.effective_batch}"
            )
        if train.sharded and (self.quantization.bits == 8 or self.lora.extra_modules):
            raise ValueError("train.sharded needs quantization.bits 4 or 16, and no lora.extra_modules")
        if train.streamed_layers and (train.sharded or self.lora.dora):
            other = "train.sharded" if train.sharded else "lora.dora"
            raise ValueError(f"train.streamed_layers cannot be combined with {other} yet; leave one of them out")
        if self.evaluation.patience is not None and not self.data.eval_fraction:
            raise ValueError("evaluation.patience needs rows held out for evaluation, but data.eval_fraction is 0")
        if train.devices > train.effective_batch:
            raise ValueError(
                f"train.devices {train.devices} is more than train.effective_batch {train.effective_batch}; each "
                f"device needs at least one conversation per step"
            )
        if checkpoint.every_steps is None and checkpoint.every_minutes is None:
            raise ValueError("checkpoint.every_steps and checkpoint.every_minutes are both empty; set one of them")
        return self

    @model_validator(mode="after")
    def _adapter_and_base_agree(self) -> Recipe:
        lora, base = self.lora, self.quantization
        if base.type == "fp4" and base.bits != 4:
            raise ValueError(f"quantization.type fp4 is a 4-bit format, but quantization.bits is {base.bits}")
        if lora.dora and lora.init != "default":
            raise ValueError(
                f"lora.dora starts from the base as it is; it cannot be combined with lora.init {lora.init}"
            )
        if lora.start_from is not None and lora.init != "default":
            raise ValueError(
                f"lora.init {lora.init} applies to a new adapter, but lora.start_from continues an existing one; use "
                f"lora.init default"
            )
        if lora.dora and base.bits == 8:
            raise ValueError("lora.dora needs the base in 4 or 16 bits: set quantization.bits to one of them")
        if lora.init == "loftq" and base.bits != 4:
            raise ValueError(
                f"lora.init loftq corrects 4-bit quantisation error, but quantization.bits is {base.bits}; use "
                f"lora.init default"
            )
        if lora.init == "pissa" and self.train.weight_decay:
            raise ValueError("lora.init pissa needs train.weight_decay 0, as it freezes half of the adapter")
        both = sorted(set(lora.extra_modules) & set(lora.targets if isinstance(lora.targets, list) else ()))
        if both:
            raise ValueError(
                f"{both[0]} is in lora.targets and in lora.extra_modules: a module can have an adapter or be fully "
                f"trained, not both"
            )
        return self

    def to_yaml(self) -> str:
        """The recipe as it is kept in a run's folder; `load_recipe` reads it back equal."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def make_recipe(values: dict[str, Any]) -> Recipe:
    """A recipe from nested or dotted keys (`lora.rank`). Raises RecipeError with key, value, allowed range."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        _put(nested, str(key), value)
    try:
        return Recipe.model_validate(nested)
    except ValidationError as error:
        raise RecipeError(" ".join(map(_explain, error.errors()))) from None


def recipe_of_run(values: dict[str, Any]) -> Recipe:
    """The recipe in a run's files: where a setting was not there yet, what was done then. Raises RecipeError."""
    data = values.get("data")
    if isinstance(data, dict):
        values = {**values, "data": {"named_splits": "ignore", **data}}
    return make_recipe(values)


def load_recipe(source: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe in a YAML file or of a preset's name, with `key=value` overrides laid over it.

    Raises RecipeError where there is no such recipe or a setting is refused.
    """
    path = _recipe_file(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name} is not readable YAML: {_yaml_fault(error)}.") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}.") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path.name} contains no settings. A recipe is a YAML file such as presets/recipes/*.yaml.")
    return make_recipe(with_overrides(values, overrides))


def with_overrides(values: dict[str, Any], overrides: list[str] | None) -> dict[str, Any]:
    """`values` with `key=value` overrides laid over it, as typed behind --set. Raises RecipeError."""
    laid_over: dict[str, Any] = {}
    for key, value in copy.deepcopy(values).items():
        _put(laid_over, key, value)
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set {override!r} is not key=value, such as --set lora.rank=32.")
        _put(laid_over, key.strip(), _parse_value(key.strip(), text))
    return laid_over


def recipe_presets() -> dict[str, Path]:
    """Shipped recipes by name."""
    return {path.stem: path for path in sorted((PRESETS / "recipes").glob("*.yaml"))}


def about_preset(name: str) -> str:
    """What a shipped recipe is for, why it is as it is, and its source: the comment at the head of its file."""
    lines = recipe_presets()[name].read_text(encoding="utf-8").splitlines()
    head = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("#").strip() for line in head)


def named_in_preset(name: str) -> set[str]:
    """The settings that a shipped recipe names, by dotted key; it leaves the others as they are."""
    values = yaml.safe_load(recipe_presets()[name].read_text(encoding="utf-8"))
    groups = {key: value for key, value in values.items() if isinstance(value, dict)}
    return (set(values) - set(groups)) | {f"{group}.{key}" for group, inner in groups.items() for key in inner}


def help_text(key: str) -> str:
    """The sentence that explains a setting, by its dotted key: the same in the app and in the docs."""
    return str(field_of(key).description or "")


def limits(key: str) -> tuple[float | None, float | None]:
    """The smallest and largest value that a setting takes, by its dotted key; None where it has no limit."""
    low = high = None
    for rule in field_of(key).metadata:
        low = getattr(rule, "ge", getattr(rule, "gt", low))
        high = getattr(rule, "le", getattr(rule, "lt", high))
    return low, high


def allowed_range(key: str) -> str:
    """What a setting's limits allow, in words: '1 to 512', 'above 0 and below 1'; empty where it has none."""
    low, high = limits(key)
    rules = field_of(key).metadata
    start = f"{'above ' if any(hasattr(rule, 'gt') for rule in rules) else ''}{low:,}" if low is not None else ""
    if high is None:
        return f"{start} or more" if start and not start.startswith("above") else start
    below = any(hasattr(rule, "lt") for rule in rules)
    return f"{start} and below {high:,}" if below else f"{start} to {high:,}"


def field_of(key: str) -> Any:
    """What pydantic knows of a setting, by its dotted key. Raises KeyError, AttributeError where there is none."""
    model: Any = Recipe
    *parents, last = key.split(".")
    for parent in parents:
        model = model.model_fields[parent].annotation
    return model.model_fields[last]


def _yaml_fault(error: Exception) -> str:
    """What is wrong, and in which line: the message begins with what was being read when it was found."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return telling_line(error)


def _recipe_file(source: str) -> Path:
    presets = recipe_presets()
    if source in presets:
        return presets[source]
    path = as_path(source)
    if path is not None and path.is_file():
        return path
    raise RecipeError(f"There is no recipe {source!r}. Give a YAML file, or one of: {', '.join(presets)}.")


def _put(nested: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = nested.get(parent)
        if not isinstance(below, dict):
            below = nested[parent] = {}
        nested = below
    nested[last] = value


def _parse_value(key: str, text: str) -> Any:
    """A value typed on the command line. YAML's reader takes '1e-3' for text, so numbers are tried first."""
    if _is_setting(key) and field_of(key).annotation in (str, str | None):
        return text or None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _explain(problem: Any) -> str:
    """What pydantic refused, as a sentence with key, value and allowed range."""
    key = ".".join(str(part) for part in problem["loc"])
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("model_type", "model_attributes_type"):
        return f"{key}: {problem['input']!r} is not valid; allowed: nested settings, such as {key}.…."
    if kind == "extra_forbidden":
        return f"{key}: there is no such setting."
    if kind == "value_error":
        return f"{context['error']}."
    allowed = problem["msg"].replace("Input should be", "allowed:")
    if _is_setting(key) and allowed_range(key):
        allowed = f"allowed: {allowed_range(key)}"
    return f"{key}: {problem['input']!r} is not valid; {allowed}."


def _is_setting(key: str) -> bool:
    try:
        field_of(key)
    except (KeyError, AttributeError):
        return False
    return True
