"""How a chat begins, as a GGUF tells llama.cpp: whether that puts the first token there. Imports no torch."""

from typing import Any

from core.untrusted.chat_templates import TEMPLATE_ERRORS

_QUESTION = [{"role": "user", "content": "a"}]


def adds_begin_token(tokenizer: Any) -> bool:
    """Where the tokenizer puts it before a text, and its chat template, if it has one, writes it too.

    llama.cpp takes it off what a template writes and adds it again, so a chat has it once. It would have it as well
    where the template leaves it out on purpose: then the file asks for none.
    """
    begin = tokenizer.bos_token
    if not begin or tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        return False
    text = _chat(tokenizer)
    return text is None or text.startswith(begin)


def begins_with_token(tokenizer: Any) -> bool:
    """Whether what the chat template writes begins with a token of its own, not with text."""
    text = _chat(tokenizer)
    return text is not None and text.startswith(tuple(tokenizer.get_added_vocab()))


def _chat(tokenizer: Any) -> str | None:
    """A question as the chat template writes it; None where there is no template, or it refuses."""
    if not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.apply_chat_template(_QUESTION, tokenize=False, add_generation_prompt=True))
    except TEMPLATE_ERRORS:
        return None
