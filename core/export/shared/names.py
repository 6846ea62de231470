"""What an export calls things: safe file names, and words in the place of this machine's paths. Imports no torch."""

import re
import unicodedata
from pathlib import Path
from typing import Any

from core.basemodel.find import FoundModel, model_presets
from core.recipe import Recipe
from core.workspace import as_path

LONGEST_NAME = 60
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
# Windows opens devices under these names, whatever their ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_ABSOLUTE = re.compile(r"^(/|~|\\\\|[A-Za-z]:[\\/])")


def safe_name(text: str, otherwise: str = "export") -> str:
    """`text` as a name that every file system takes: ASCII letters, digits, dots, dashes; `otherwise` if none is left.

    It has no dot at its ends, at most 60 characters, and is not a name that Windows keeps for devices.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = _NOT_IN_NAMES.sub("-", plain)[:LONGEST_NAME].strip(".-_")
    if not name:
        return otherwise
    return f"{name}-model" if _DEVICES.fullmatch(name) else name


def is_on_hub(base: FoundModel) -> bool:
    """Whether others can find the base by its id."""
    return base.revision is not None


def base_name(base: FoundModel) -> str:
    """What the base is called elsewhere: its Hugging Face id, its preset's name, or the name of its folder."""
    if is_on_hub(base):
        return base.source
    return base.wanted if base.wanted in model_presets() else safe_name(Path(base.source).name, "base-model")


def portable_recipe(recipe: Recipe, base: FoundModel, dataset: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and what it says of its dataset, with names in the place of paths."""
    values = recipe.model_dump()
    values["model"] = base_name(base)
    path = as_path(recipe.data.path)
    if path is not None or _ABSOLUTE.match(recipe.data.path):
        values["data"]["path"] = re.split(r"[\\/]", recipe.data.path.rstrip("\\/"))[-1]
    told = {key: dataset[key] for key in ("name", "sha256") if key in dataset}
    return Recipe.model_validate(values), {key: _last_part(value) for key, value in told.items()}


def _last_part(value: Any) -> Any:
    return re.split(r"[\\/]", value)[-1] if isinstance(value, str) and _ABSOLUTE.match(value) else value


def without_paths(value: Any) -> Any:
    """A value of a JSON file in which no text is an absolute path: such ones are cut to their last part."""
    if isinstance(value, dict):
        return {key: without_paths(each) for key, each in value.items() if key != "name_or_path"}
    if isinstance(value, list):
        return [without_paths(each) for each in value]
    return _last_part(value) if isinstance(value, str) and len(value) > 3 else value
