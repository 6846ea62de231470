"""Which chat template a model is trained with: its own, trl's training variant of it, or one that Nibble ships."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.data.rendering.chat_template import ChatTemplate, Unrenderable
from core.data.rendering.probes import PROBES
from core.untrusted.chat_templates import TEMPLATE_ERRORS
from core.untrusted.template_marks import has_marks
from core.workspace import PRESETS

UNMARKED = "the model's own template, with replies found by comparing prefixes"
_MARKED = "the model's own template, with trl's markers around the replies"
_TRAINING = "_training"
_SPECIAL_LOOKING = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")


def own_template(name: str) -> str:
    """The text of a template that Nibble ships, by its name in data.template."""
    return (PRESETS / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def give_template(tokenizer: Any, wanted: str) -> str:
    """Put the template to train with into `tokenizer`; returns where it came from, in words."""
    if isinstance(tokenizer.chat_template, dict):  # several, by name; the others are for tools and retrieval
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if wanted != "auto":
        tokenizer.chat_template = own_template(wanted)
        return f"the {wanted} template, as set in data.template"
    if not tokenizer.chat_template:
        tokenizer.chat_template = own_template("guanaco")
        return "Guanaco's template, as this base model has none"
    if has_marks(tokenizer.chat_template):
        return "the model's own template, which marks replies"
    found = _by_its_letters(tokenizer)
    if found is not None:
        tokenizer.chat_template = found
        return _MARKED
    special = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    family = _family(tokenizer.chat_template, tuple(sorted(special.items())))
    if family is not None:
        name, tokenizer.chat_template = family
        return f"{_MARKED}: it renders like {name}'s"
    return UNMARKED


def _by_its_letters(tokenizer: Any) -> str | None:
    """The training variant that trl ships for exactly this template."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        found: str | None = get_training_chat_template(tokenizer)
    except TEMPLATE_ERRORS:  # it knows no such template, or cannot render it on its own trials
        return None
    return found if found and has_marks(found) else None


@lru_cache(maxsize=32)
def _family(source: str, special: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """The family whose template renders every probe as this one, and its training variant; None where none does."""
    own = ChatTemplate(source, dict(special))
    rendered = _renderings(own)
    signs = set(_SPECIAL_LOOKING.findall(str(rendered[0])))
    if not any(rendered) or not signs:
        return None
    for original, training in _families():
        text = original.read_text(encoding="utf-8")
        named = all(sign in text or sign in dict(special).values() for sign in signs)
        if named and _renderings(own.with_source(text)) == rendered:
            return original.stem, training.read_text(encoding="utf-8")
    return None


def _families() -> list[tuple[Path, Path]]:
    """The templates that trl knows, each with its training variant."""
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    trained = sorted(folder.glob(f"*{_TRAINING}.jinja"))
    pairs = [(each.with_name(each.name.replace(_TRAINING, "")), each) for each in trained]
    return [(original, training) for original, training in pairs if original.is_file()]


def _renderings(template: ChatTemplate) -> list[str | None]:
    """Every probe's text, with and without a question for a reply; None where the template refuses it."""
    texts: list[str | None] = []
    for messages, tools in PROBES.values():
        for ask in (False, True):
            for upto in range(1, len(messages) + 1):
                try:
                    texts.append(template.text(messages[:upto], tools, ask))
                except Unrenderable:
                    texts.append(None)
    return texts
