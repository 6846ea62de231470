"""What a request wants of a chat template reaches it, or is refused with what the template does know."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from core.errors import AskError
from core.generation.generate import prompt_ids

ASK = [{"role": "user", "content": "hello"}]
# Small templates that have the switches by which today's models are told how to think.
ON_OFF = (
    "{%- set note = 'x' %}{%- for message in messages %}{{ message.content }}{%- endfor %}"
    "{%- if add_generation_prompt %}{%- if enable_thinking is defined and not enable_thinking %}<off>"
    "{%- elif enable_thinking %}<on>{%- endif %}{%- endif %}"
)
GRADED = (
    "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
    "{{ 'effort ' ~ reasoning_effort }}{%- for message in messages %}{{ message.content }}{%- endfor %}"
)
NAMED = "{%- for m in messages %}{{ m.name ~ ': ' if m.name else '' }}{{ m.content }}{%- endfor %}"


def _text(tokenizer: Any, template: str, messages: list[dict[str, Any]] = ASK, **asked: Any) -> str:
    own = deepcopy(tokenizer)
    own.chat_template = template
    return str(own.decode(prompt_ids(own, messages, 512, asked=asked)))


def test_its_variables_reach_the_template(tokenizer: Any) -> None:
    assert _text(tokenizer, ON_OFF) == "hello"
    assert _text(tokenizer, ON_OFF, chat_template_kwargs={"enable_thinking": False}) == "hello<off>"
    assert _text(tokenizer, ON_OFF, chat_template_kwargs={"enable_thinking": True}) == "hello<on>"
    assert _text(tokenizer, GRADED, chat_template_kwargs={"reasoning_effort": "high"}) == "effort highhello"


def test_how_much_to_think_is_said_as_the_template_takes_it(tokenizer: Any) -> None:
    assert _text(tokenizer, GRADED) == "effort mediumhello"
    assert _text(tokenizer, GRADED, reasoning_effort="low") == "effort lowhello"
    assert _text(tokenizer, ON_OFF, reasoning_effort="none") == "hello<off>"
    assert _text(tokenizer, ON_OFF, reasoning_effort="medium") == "hello<on>"


@pytest.mark.parametrize(
    ("template", "asked", "setting", "said"),
    [
        (NAMED, {"reasoning_effort": "none"}, "reasoning_effort", "has no reasoning_effort. Leave it out"),
        (ON_OFF, {"reasoning_effort": "high"}, "reasoning_effort", "only turns thinking off"),
        (ON_OFF, {"chat_template_kwargs": {"think": 1}}, "chat_template_kwargs.think", "it has enable_thinking."),
        (ON_OFF, {"chat_template_kwargs": {"note": 1}}, "chat_template_kwargs.note", "has no 'note'"),
        (NAMED, {"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x", "none that can be set"),
        (ON_OFF, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "has no 'messages'"),
        (ON_OFF, {"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs.tokenize", "has no"),
        (ON_OFF, {"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template", "has no"),
    ],
)
def test_what_the_template_does_not_know_is_refused(
    tokenizer: Any, template: str, asked: dict[str, Any], setting: str, said: str
) -> None:
    with pytest.raises(AskError) as refused:
        _text(tokenizer, template, **asked)
    assert refused.value.setting == setting and said in str(refused.value)


def test_speakers_are_told_apart_by_name_or_the_request_is_refused(tokenizer: Any) -> None:
    two = [{"role": "user", "content": text, "name": name} for name, text in (("anna", "hi"), ("bo", "ho"))]
    assert _text(tokenizer, NAMED, two) == "anna: hibo: ho"
    with pytest.raises(AskError, match="does not support names"):
        _text(tokenizer, ON_OFF, two)
    # One speaker of a role is who speaks, whatever the name.
    assert _text(tokenizer, ON_OFF, two[:1]) == "hi"


@pytest.mark.parametrize("name", ["qwen3", "gptoss", "gemma4", "nemotron_3_nano", "llama3_2", "smolvlm"])
def test_of_published_templates_the_variables_are_known(name: str) -> None:
    """trl's copies of them; what each has, read off the template by eye."""
    from pathlib import Path

    import trl

    from core.generation.template_variables import _GIVEN, _variables

    text = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    assert (
        _variables(text) - _GIVEN
        == {
            "qwen3": {"enable_thinking"},
            "gptoss": {"builtin_tools", "model_identity", "reasoning_effort"},
            "gemma4": {"enable_thinking"},
            "nemotron_3_nano": {"enable_thinking", "truncate_history_thinking"},
            "llama3_2": {"custom_tools", "date_string", "tools_in_user_message"},
            "smolvlm": set(),
        }[name]
    )
