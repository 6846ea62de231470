"""Conversations to try chat templates with, and what transformers makes of them."""

from __future__ import annotations

from typing import Any

from core.untrusted.chat_templates import TEMPLATE_ERRORS

SYSTEM = [{"role": "system", "content": "Be\nbrief."}]
ONE = [{"role": "user", "content": "Hi there"}]
SEVERAL = [*ONE, {"role": "assistant", "content": "Yo\n\nyo"}, {"role": "user", "content": "again"}]
LONG = [*SEVERAL, {"role": "assistant", "content": "well"}, {"role": "user", "content": "so?"}]
PADDED = [{**each, "content": f" \n{each['content']}\n\n"} for each in SEVERAL]


def by_jinja(tokenizer: Any, conversation: list[dict[str, str]]) -> str | None:
    """As transformers renders it, from text or, where that loses what is said, from parts; None where it refuses."""
    parts = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in conversation]
    for given in (conversation, parts):
        try:
            text = str(tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=True))
        except TEMPLATE_ERRORS:
            continue
        if conversation[-1]["content"].strip() in text:
            return text
    return None
