"""Conversations, stand-ins of the families' tokenizers, and what a template marks to be trained, by a reference.

The reference does not use transformers' way of finding the marked places: each mark is replaced by a character of the
private use area, the template rendered as any other, and the places read off the text.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby
from typing import Any

from core.data.conversation import Conversation, Message
from core.data.rendering.render import Rendered, Renderer

START, END = "\ue000", "\ue001"


CALL = {"type": "function", "function": {"name": "multiply", "arguments": {"a": 2, "b": 3}}}


TOOL = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "Multiply two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}


def user(text: str) -> Message:
    """What the user says."""
    return {"role": "user", "content": text}


def reply(text: str, **more: Any) -> Message:
    """What the assistant answers."""
    return {"role": "assistant", "content": text, **more}


TALKS: dict[str, list[Message]] = {
    "plain": [user("What is red?"), reply("A ball, perhaps.")],
    "system": [{"role": "system", "content": "Be brief."}, user("Hello?"), reply("Hello.")],
    "turns": [user("One?"), reply("Two."), user("Three?"), reply("Four, I think."), user("Five"), reply("6")],
    "unicode": [user("안녕하세요 👩‍👩‍👧 שלום"), reply("ünï — 你好 🪁🎈 \u200dé")],
    "spaces": [user("  hello \n"), reply("  led by spaces, ended by them \n\n "), user("\tand\t"), reply("\n a b")],
    "markup": [user("<b>bold</b> & {{ braces }}"), reply("{% raw %} <br/> ]] [/INST")],
    "thought": [user("2*3?"), reply("<think>\nSix.\n</think>\n\n6"), user("sure?"), reply("Yes.")],
    "reasoning": [user("2*3?"), reply("6", reasoning_content="two threes")],
    "tools": [
        user("2*3?"),
        reply("", tool_calls=[CALL]),
        {"role": "tool", "name": "multiply", "content": "6"},
        reply("It is 6."),
    ],
}


@cache
def stand_in(kind: str, special: tuple[str, ...]) -> Any:
    """A stand-in of a family: byte-level BPE as Llama 3's and Qwen's, or word-start marks as Llama 2's and Gemma's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [message["content"] for talk in TALKS.values() for message in talk] * 3
    texts += ["### Human: what### Assistant: that", "[INST] so [/INST] then", "assistant\nuser\nsystem\n"] * 5
    if kind == "byte-level":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        raw.normalizer = normalizers.Replace(" ", "▁")
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        raw.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = []
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if kind != "byte-level" else []
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<unk>", *bytes_], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def special_tokens(template: str) -> tuple[str, ...]:
    """The special tokens that stand in `template`."""
    found = re.findall(r"<\|[A-Za-z_0-9]+\|>|<(?:start|end)_of_turn>|<｜[^｜']+｜>|</?think>|</?tool_call>", template)
    return tuple(sorted(set(found)))


def _marked(template: str) -> str:
    """The template with a character of its own where a marked place starts and where it ends."""
    opened = r'{%\1 if true %}{{ "' + START + r'" }}{% if true \2%}'
    closed = r'{%\1 endif %}{{ "' + END + r'" }}{% endif \2%}'
    template = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", opened, template)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", closed, template)


def expected(renderer: Renderer, talk: Conversation) -> tuple[str, list[str]]:
    """The text and its marked places, by the reference; each begins where the text that asks for its reply ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template = _marked(renderer.tokenizer.chat_template)
    special = renderer.tokenizer.special_tokens_map
    messages = talk.messages
    if renderer.template.in_parts:
        messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
    (text,), _ = render_jinja_template([messages], tools=talk.tools, chat_template=template, **special)
    text = text.replace(END + START, "").replace(START + END, "")
    ends = [found.start() - 2 * count - 1 for count, found in enumerate(re.finditer(END, text))]
    text = text.replace(START, "").replace(END, "")
    starts = [len(_asked(renderer, talk, index)) for index, each in enumerate(messages) if each["role"] == "assistant"]
    return text, [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _asked(renderer: Renderer, talk: Conversation, index: int) -> str:
    """What a chat asks message `index` with, by plain transformers."""
    messages = talk.messages[:index]
    if renderer.template.in_parts:
        messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
    asked = renderer.tokenizer.apply_chat_template(
        messages, tools=talk.tools, tokenize=False, add_generation_prompt=True
    )
    return str(asked)


def trained_runs(tokenizer: Any, rendered: Rendered) -> list[str]:
    """The text of each unbroken run of trained tokens."""
    runs, at = [], 0
    for trained, group in groupby(rendered.trained):
        end = at + len(list(group))
        if trained:
            before, upto = (tokenizer.decode(rendered.ids[:stop], skip_special_tokens=False) for stop in (at, end))
            runs.append(upto[len(before) :])
        at = end
    return runs
