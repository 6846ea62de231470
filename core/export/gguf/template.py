"""The chat template as a GGUF carries it, so that llama.cpp lays a conversation out as the chat does. No torch."""

from typing import Any

from core.untrusted.chat_templates import TEMPLATE_ERRORS
from core.untrusted.template_marks import plain_template

# What llama.cpp tells templates of its own accord (its common/chat.cpp): that the model may think, and, to those of
# Llama 3, today's date in the place of the one that stands in them.
TOLD = {"enable_thinking": True, "date_string": "24 Dec 2031"}
_UNSAID = "{% set NAME = nothing_was_said %}{{ '' }}"
_CONVERSATION = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
_CONVERSATIONS = [_CONVERSATION[:1], _CONVERSATION, [{"role": "system", "content": "zero"}, *_CONVERSATION]]


def gguf_template(tokenizer: Any) -> str | list[dict[str, str]] | None:
    """What goes into the file: one template, or several by name as transformers has them; None where there is none."""
    own = tokenizer.chat_template
    if isinstance(own, dict):
        return [{"name": name, "template": _as_told(tokenizer, text)} for name, text in own.items()]
    return _as_told(tokenizer, own) if own else None


def _as_told(tokenizer: Any, template: str) -> str:
    """Without the marks for training, and deaf to what only llama.cpp would tell it and the chat does not."""
    plain = plain_template(template)
    heard = [
        name
        for name, value in TOLD.items()
        if name in plain and _rendered(tokenizer, plain) != _rendered(tokenizer, plain, **{name: value})
    ]
    return "".join(_UNSAID.replace("NAME", name) for name in heard) + plain


def _rendered(tokenizer: Any, template: str, **told: Any) -> list[str | None]:
    """Each of the conversations, None where the template refuses it."""
    return [_render(tokenizer, template, conversation, told) for conversation in _CONVERSATIONS]


def _render(tokenizer: Any, template: str, conversation: list[dict[str, str]], told: dict[str, Any]) -> str | None:
    try:
        return str(
            tokenizer.apply_chat_template(
                conversation, chat_template=template, tokenize=False, add_generation_prompt=True, **told
            )
        )
    except TEMPLATE_ERRORS:
        return None
