"""Writes docs/settings.md: every setting of a recipe, and the names of recipes, models, cards and samples.

    python docs/settings.py

All of it is read from where the app and the command line read it: nothing is described here a second time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from app.ui.form import FIELDS  # noqa: E402
from core.basemodel.find import model_presets  # noqa: E402
from core.catalogue.facts import cards, model_facts  # noqa: E402
from core.data.formats.layouts import FORMATS  # noqa: E402
from core.data.samples import samples  # noqa: E402
from core.recipe import Recipe, about_preset, allowed_range, field_of, help_text, recipe_presets  # noqa: E402
from core.runs.resume import MAY_CHANGE  # noqa: E402
from core.sizes import GIB  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
# What the type of a setting does not say: its values are names that this page or another one lists.
ELSEWHERE = {
    "model": "a [model's name](#models), a folder, a Hugging Face id",
    "data.path": "a [sample's name](#samples), a file, a folder, a Hugging Face id or address",
    "budget": "a size, or a share of the device's memory, or empty",
    "data.format": ", ".join(f"`{name}`" for name in FORMATS),
    "data.encoding": "`auto`, or [an encoding](data.md#encodings)",
    "data.mapping.roles": "name: role pairs; the roles are `system`, `user`, `assistant`, `tool`, `leave out`",
}
BYTES_A_PARAMETER = 2  # in 16 bits
EXAMPLE = "python launch.py train modern --set model=qwen3-4b --set data.path=my.jsonl --set lora.rank=64"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """docs/settings.md."""
    resumed = ", ".join(f"`{key}`" for key in MAY_CHANGE)
    groups = [part for group in _groups() for part in _section(*group)]
    return "\n\n".join(
        [
            "# Settings and names",
            "Written by `python docs/settings.py`, never by hand.",
            "A recipe is a YAML file with any of these settings; the others keep their defaults. On the Train tab, "
            "most of them are under Advanced, by the name in the second column. On the command line, `--set key=value` "
            "changes one, and can be repeated:",
            f"```\n{EXAMPLE}\n```",
            "Nothing behind the `=` makes a setting empty, where that is allowed. Names of modules take commas "
            "(`lora.targets=q_proj,v_proj`), sample prompts a list as in YAML "
            "(`\"evaluation.prompts=['Who are you?', 'What is 2 + 2?']\"`). A value out of range, an unknown setting "
            "and settings that contradict each other are refused, with the reason, before anything starts.",
            f"`resume` can change {resumed}; with other settings it would be another run.",
            "## Settings",
            *groups,
            "## Recipes",
            "For `train` and `plan`, and under *Load a recipe* on the Train tab. The comments in `presets/recipes` "
            "give the reasons and the sources.",
            _recipes(),
            "## Models",
            "For `model` and `--model`. Any other model is given by its Hugging Face id or its folder. What is "
            "downloaded is the 16-bit model, of about the size in this table (twice that if it was published in 32 "
            "bits). [What fits](what_fits.md) says how much memory training takes.",
            _models(),
            "## Cards",
            "For `plan --card`.",
            _cards(),
            "## Samples",
            "For `data.path` and `data check`. Made for the starter, with the recipe of the same name (`pirate`: "
            "`quickstart`).",
            _samples() + "\n",
        ]
    )


def _groups(prefix: str = "", settings: type[BaseModel] = Recipe) -> Iterator[tuple[str, list[str]]]:
    """The recipe's groups: their names, and the dotted keys of their settings."""
    inner = {f"{prefix}{key}": field.annotation for key, field in settings.model_fields.items()}
    below = {key: kind for key, kind in inner.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    yield prefix.removesuffix("."), [key for key in inner if key not in below]
    for key, group in below.items():
        yield from _groups(f"{key}.", group)


def _section(group: str, keys: list[str]) -> list[str]:
    about = help_text(group) if group else ""
    table = _table(("setting", "on the Train tab", "default", "allowed", "meaning"), map(_row, keys))
    return [f"### `{group}`" if group else "### The run", *([about] if about else []), table]


def _row(key: str) -> tuple[str, ...]:
    label = FIELDS[key].label if key in FIELDS else ""
    default = shown(field_of(key).get_default(call_default_factory=True))
    return f"`{key}`", label, default, allowed(key), help_text(key)


def shown(value: Any) -> str:
    """A default as one writes it in a recipe."""
    if value is None or value == [] or value == {}:
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def allowed(key: str) -> str:
    """Which values a setting takes, in words."""
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    kinds = _kinds(field_of(key).annotation)
    words = [_kind(key, kind) for kind in kinds if kind is not NoneType]
    return ", or ".join(words + ["empty"] * (NoneType in kinds))


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _kind(key: str, kind: Any) -> str:
    most = next((rule.max_length for rule in field_of(key).metadata if hasattr(rule, "max_length")), None)
    if get_origin(kind) is Literal:
        return ", ".join(shown(word) for word in get_args(kind))
    if get_origin(kind) is list:
        return "a list" if most is None else f"a list of at most {most}"
    if kind is bool:
        return "`true`, `false`"
    if kind is str:
        return "text" if most is None else f"text of at most {most} characters"
    return ("a whole number, " if kind is int else "") + allowed_range(key)


def _recipes() -> str:
    rows = []
    for name, file in recipe_presets().items():
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        path = values.get("data", {}).get("path")
        chosen = [f"`{each}`" if each else "yours" for each in (values.get("model"), path)]
        purpose = re.split(r"(?<=\.) ", about_preset(name))[0]
        rows.append((f"`{name}`", values["name"], purpose, *chosen))
    return _table(("recipe", "on the Train tab", "for what", "model", "data"), rows)


def _models() -> str:
    rows = [(f"`{preset.name}`", preset.title, "", "", "ships with Nibble") for preset in model_presets().values()]
    for facts in sorted(model_facts().values(), key=lambda each: each.parameters):
        download = f"{facts.parameters * BYTES_A_PARAMETER / 1e9:.1f}"
        link = f"[{facts.hub}](https://huggingface.co/{facts.hub})"
        rows.append((f"`{facts.name}`", facts.title, download, facts.license, link))
    return _table(("name", "model", "16-bit weights, GB", "licence", "from"), rows, right=(2,))


def _cards() -> str:
    rows = [
        (f"`{card.name}`", card.title, f"{card.memory_bytes / GIB:.1f}")
        for card in sorted(cards().values(), key=lambda card: card.memory_bytes)
    ]
    return _table(("name", "card", "usable memory, GiB"), rows, right=(2,))


def _samples() -> str:
    return _table(
        ("name", "sample", "what it teaches"), [(f"`{each.name}`", each.title, each.teaches) for each in samples()]
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    sides = "".join("---:|" if index in right else "---|" for index in range(len(head)))
    lines = ["| " + " | ".join(cells).replace("<", "&lt;") + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{sides}", *lines[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
