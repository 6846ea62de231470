"""Every template that trl ships and every one of ours, with each shape of conversation, as plain transformers renders.

What an export's template writes is what was trained, character for character; and what is trained goes on from what a
chat asks: the text of the messages before it, ready for a reply, is the beginning of the text that is learned, and
what counts begins exactly there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Conversation, Message
from core.data.rendering.template import Template, Unrenderable
from core.recipe import DataSettings
from core.untrusted.template_marks import plain_template
from tests.chat_templates import TEMPLATES
from tests.core.data.rendering.marked import CALL, TOOL
from tests.tiny import tiny_tokenizer


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def reply(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


SHAPES: dict[str, list[Message]] = {
    "one turn": [user("What is red?"), reply("A ball, perhaps.")],
    "turns": [user("One?"), reply("Two."), user("Three?"), reply("Four, I think."), user("Five"), reply("Six")],
    "system": [{"role": "system", "content": "Be brief."}, user("Hello?"), reply("Hello there.")],
    "tools": [
        user("2*3?"),
        reply("", tool_calls=[CALL], reasoning_content="A product."),
        {"role": "tool", "name": "multiply", "content": "6"},
        reply("It is six."),
        user("Sure?"),
        reply("Yes."),
    ],
    "reasoning": [
        user("2*3?"),
        reply("Six.", reasoning_content="Two threes."),
        user("Sure?"),
        reply("Yes.", reasoning_content="I counted."),
    ],
    "begins with the assistant": [reply("Welcome in."), user("Hi"), reply("What now?")],
    "two questions in a row": [user("Hello?"), user("Are you there?"), reply("I am.")],
}
MOST_REFUSED = {"begins with the assistant", "two questions in a row", "tools", "system"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer to give templates to."""
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"), None)
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


@pytest.mark.parametrize("choice", ["auto", "continued"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_exported_is_what_was_trained_and_goes_on_from_what_is_asked(
    name: str, choice: Any, bare: Any, tmp_path: Path
) -> None:
    bare.chat_template = TEMPLATES[name]
    template = Template(bare, DataSettings(generation_prompt=choice))
    trained, exported = _loaded(bare, tmp_path, False), _loaded(bare, tmp_path, True)
    taken = []
    for shape, messages in SHAPES.items():
        tools = [TOOL] if shape == "tools" else None
        try:
            layouts = template.lay_outs(Conversation(1, messages, tools))
        except Unrenderable:
            assert shape in MOST_REFUSED
            continue
        taken.append(shape)
        given = _as_parts(messages) if template.in_parts else messages
        for upto in range(1, len(given) + 1):
            for ask in (False, True):
                assert _text(exported, given[:upto], tools, ask) == _text(trained, given[:upto], tools, ask)
        for layout in layouts:
            for span in layout.spans:
                _goes_on(layout.text, span, messages, given, tools, exported)
        learned = sorted(span.message for layout in layouts for span in layout.spans)
        replies = [i for i, each in enumerate(messages) if each["role"] == "assistant"]
        # One that only calls a tool is nothing in a template that writes no calls.
        assert [i for i in learned if messages[i]["content"]] == [i for i in replies if messages[i]["content"]]
        assert len(set(learned)) == len(learned)
        if layouts[-1].asked == "as it is" and len(layouts) == 1:
            assert layouts[0].text.startswith(_text(exported, given, tools, False))
    assert {"one turn", "turns", "reasoning"} <= set(taken)


def _loaded(tokenizer: Any, folder: Path, exported: bool) -> Any:
    """The tokenizer saved, its template as in an export or as in a run, and loaded again as a stranger would."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    file = folder / "chat_template.jinja"
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if exported:
        file.write_text(plain_template(file.read_text(encoding="utf-8")), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def _as_parts(messages: list[Message]) -> list[Message]:
    return [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]


def _text(tokenizer: Any, messages: list[Message], tools: Any, ask: bool) -> str | None:
    """None where the template refuses it."""
    try:
        return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=ask))
    except Exception:  # a template may end in anything
        return None


def _goes_on(text: str, span: Any, messages: list[Message], given: list[Message], tools: Any, exported: Any) -> None:
    asked = _text(exported, given[: span.message], tools, True) if span.message else None
    said = messages[span.message]["content"]
    if asked is not None:
        assert text.startswith(asked)
        assert span.start == len(asked)
        role = asked.removeprefix(_text(exported, given[: span.message], tools, False) or asked).strip()
        assert not role or not text[span.start : span.end].lstrip().startswith(role)  # the mark of the role itself
    assert said in text[span.start : span.end]
    assert not any(other["content"] in text[span.start : span.end] for other in messages[span.message + 1 :])
