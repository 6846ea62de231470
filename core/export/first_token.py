"""Whether a GGUF asks llama.cpp to put the first token before every prompt. Imports no torch."""

from __future__ import annotations

from typing import Any

from core.templates import TEMPLATE_ERRORS

_QUESTION = [{"role": "user", "content": "a"}]


def adds_begin_token(tokenizer: Any) -> bool:
    """Where the tokenizer puts it before a text, and its chat template, if it has one, writes it too.

    llama.cpp takes it off what a template writes and adds it again, so a chat has it once. It would have it as well
    where the template leaves it out on purpose: then the file asks for none.
    """
    begin = tokenizer.bos_token
    if not begin or tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        return False
    if not tokenizer.chat_template:
        return True
    try:
        text = tokenizer.apply_chat_template(_QUESTION, tokenize=False, add_generation_prompt=True)
    except TEMPLATE_ERRORS:
        return True
    return str(text).startswith(begin)
