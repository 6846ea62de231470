"""Which kinds of models the installed transformers knows, and which need code of their own. No torch."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import ModelError

# What a model's own code can be for, by transformers' names; the first two are needed.
PURPOSES = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")


@cache
def known_kinds() -> frozenset[str]:
    """The model_type of every architecture that the installed transformers has; read from its files, not imported."""
    spec = find_spec("transformers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    kinds: set[str] = set()
    for place in places:
        for name in ("auto_mappings", "configuration_auto"):
            text = (Path(place) / "models" / "auto" / f"{name}.py").read_text(encoding="utf-8")
            kinds |= set(re.findall(r'"([\w.-]+)"[,:]\s*"\w+Config"', text))
    return frozenset(kinds)


def needs_code(config: dict[str, Any]) -> bool:
    """Whether a model with this config needs code of its own. Raises ModelError where it does and has none."""
    kind = config["model_type"]
    if kind in known_kinds():
        return False
    if not set(PURPOSES[:2]) <= set(classes_of(config)):
        raise ModelError(
            f"The model type {kind!r} is not known here, and it comes without code of its own. Choose another "
            "model, or a newer Nibble."
        )
    return True


def classes_of(config: dict[str, Any]) -> dict[str, str]:
    """The classes of its own that a config.json or tokenizer_config.json names, as 'file.Class', by purpose."""
    named = config.get("auto_map")
    found: dict[str, str] = {}
    for purpose in PURPOSES:
        value = named.get(purpose) if isinstance(named, dict) else None
        if isinstance(value, list):  # a tokenizer's: the slow one, the fast one
            value = next((each for each in reversed(value) if each), None)
        if isinstance(value, str):
            found[purpose] = value
    return found
