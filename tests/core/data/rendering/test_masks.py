"""The mask is exact: for every template of trl's and every one of ours, what is trained is what the template marks.

The reference does not use transformers' way of finding the marked places: each mark is replaced by a character of the
private use area, the template rendered as any other, and the places read off the text.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Conversation, Message
from core.data.rendering.render import Rendered, Renderer
from core.data.rendering.template import Unrenderable
from core.recipe import DataSettings
from core.workspace import PRESETS

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


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _reply(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


TALKS: dict[str, list[Message]] = {
    "plain": [_user("What is red?"), _reply("A ball, perhaps.")],
    "system": [{"role": "system", "content": "Be brief."}, _user("Hello?"), _reply("Hello.")],
    "turns": [_user("One?"), _reply("Two."), _user("Three?"), _reply("Four, I think."), _user("Five"), _reply("6")],
    "unicode": [_user("안녕하세요 👩‍👩‍👧 שלום"), _reply("ünï — 你好 🪁🎈 \u200dé")],
    "spaces": [_user("  hello \n"), _reply("  led by spaces, ended by them \n\n "), _user("\tand\t"), _reply("\n a b")],
    "markup": [_user("<b>bold</b> & {{ braces }}"), _reply("{% raw %} <br/> ]] [/INST")],
    "thought": [_user("2*3?"), _reply("<think>\nSix.\n</think>\n\n6"), _user("sure?"), _reply("Yes.")],
    "reasoning": [_user("2*3?"), _reply("6", reasoning_content="two threes")],
    "tools": [
        _user("2*3?"),
        _reply("", tool_calls=[CALL]),
        {"role": "tool", "name": "multiply", "content": "6"},
        _reply("It is 6."),
    ],
}


def _templates() -> dict[str, str]:
    import trl

    files = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    files += sorted((PRESETS / "templates").glob("*.jinja"))
    return {path.stem: path.read_text(encoding="utf-8") for path in files}


TEMPLATES = _templates()


@cache
def _tokenizer(kind: str, special: tuple[str, ...]) -> Any:
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


def _special(template: str) -> tuple[str, ...]:
    found = re.findall(r"<\|[A-Za-z_0-9]+\|>|<(?:start|end)_of_turn>|<｜[^｜']+｜>|</?think>|</?tool_call>", template)
    return tuple(sorted(set(found)))


def _marked(template: str) -> str:
    """The template with a character of its own where a marked place starts and where it ends."""
    opened = r'{%\1 if true %}{{ "' + START + r'" }}{% if true \2%}'
    closed = r'{%\1 endif %}{{ "' + END + r'" }}{% endif \2%}'
    template = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", opened, template)
    return re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", closed, template)


def _expected(renderer: Renderer, talk: Conversation) -> tuple[str, list[str]]:
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


def _trained_runs(tokenizer: Any, rendered: Rendered) -> list[str]:
    """The text of each unbroken run of trained tokens."""
    runs, at = [], 0
    for trained, group in groupby(rendered.trained):
        end = at + len(list(group))
        if trained:
            before, upto = (tokenizer.decode(rendered.ids[:stop], skip_special_tokens=False) for stop in (at, end))
            runs.append(upto[len(before) :])
        at = end
    return runs


def _cases() -> list[tuple[str, str]]:
    kinds = {name: ["byte-level", "word-start"] for name in TEMPLATES}
    # DeepSeek's special tokens have a word-start mark in their names; its tokenizer is a byte-level one.
    return [
        (name, kind) for name in TEMPLATES for kind in kinds[name] if kind == "byte-level" or "▁" not in TEMPLATES[name]
    ]


@pytest.mark.parametrize(("name", "kind"), _cases())
def test_what_is_trained_is_what_the_template_marks(name: str, kind: str) -> None:
    """Every kind of conversation is either exact or refused; the plain one may never be refused."""
    tokenizer = _tokenizer(kind, _special(TEMPLATES[name]))
    tokenizer.chat_template = TEMPLATES[name]
    renderer = Renderer(tokenizer, DataSettings())
    exact = 0
    for kind_of_talk, messages in TALKS.items():
        talk = Conversation(1, messages, [TOOL] if kind_of_talk == "tools" else None)
        try:
            renderer.render(talk, 100_000)
        except Unrenderable as error:
            assert kind_of_talk != "plain", error
            continue
        layouts, runs = renderer.template.lay_outs(talk), []
        for layout, (_, rendered) in zip(layouts, renderer.render_many([talk], 100_000), strict=True):
            assert isinstance(rendered, Rendered)
            assert tokenizer.decode(rendered.ids, skip_special_tokens=False) == layout.text
            runs += _trained_runs(tokenizer, rendered)
        if renderer.template.marked:
            assert (layouts[0].text, runs) == _expected(renderer, talk), kind_of_talk
        else:
            _only_replies_and_their_ends(runs, messages)
        exact += 1
    assert exact >= 3


def _only_replies_and_their_ends(runs: list[str], messages: list[Message]) -> None:
    """For a template without marks: each run starts with the reply's own words and goes on to its end of turn.

    Before them stands at most an empty thinking block, or the name of the channel that they are said in.
    """
    replies = [message for message in messages if message["role"] == "assistant"]
    assert len(runs) == len(replies)
    for run, reply in zip(runs, replies, strict=True):
        own = reply["content"].strip()
        assert own.split("</think>")[-1].strip() in run
        if own and "think" not in own and not reply.get("reasoning_content"):
            end = run[run.index(own) + len(own) :]
            opening = r"\s*(<think>\s*</think>|<\|channel\|>final<\|message\|>)?\s*"
            assert re.fullmatch(opening, run[: run.index(own)])
            assert re.fullmatch(r"\s*(<[^<>]+>\s*)*", end)
            assert "<" in end
