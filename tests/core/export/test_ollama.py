"""The Modelfile's template says what the model's own says, and the stop words are those of the chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.build import load_tokenizer
from core.data.layout import own_template
from core.export.ollama import go_template, modelfile, stop_words
from core.export.place import ExportError
from core.export.subject import Subject
from core.export.turns import find_turns
from tests.core.export.made import subject_with_adapter

# As their authors' templates lay conversations out, in a few words.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHOUTS = "{% for m in messages %}[{{ m.role }}] {{ m.content | upper }}\n{% endfor %}"


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The starter with an adapter."""
    return subject_with_adapter(tmp_path_factory.mktemp("starter"), "starter")


@pytest.fixture
def tokenizer(starter: Subject) -> Any:
    """Its tokenizer, to be given other templates."""
    return load_tokenizer(starter.base, starter.adapter)


@pytest.mark.parametrize(
    "template", [LLAMA_3, QWEN, *(own_template(n) for n in ("chatml", "guanaco", "llama-2", "alpaca"))]
)
def test_the_turns_of_known_templates_are_found_and_render_the_same(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    turns = find_turns(tokenizer)
    assert turns is not None
    talk = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    assert turns.render(talk) == tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)


def test_a_template_that_takes_no_system_prompt_leaves_it_out(tokenizer: Any) -> None:
    tokenizer.chat_template = GEMMA
    turns = find_turns(tokenizer)
    assert turns is not None and turns.begin_system is None
    assert '{{ if eq .Role "system" }}{{ else if' in go_template(turns)


def test_the_modelfile_of_the_starter_has_its_words(starter: Subject) -> None:
    text = modelfile(starter, "model.gguf", None, 1024)
    assert text.startswith('FROM ./model.gguf\nTEMPLATE """{{ $told := false }}')
    assert '{{ "<|im_start|>user\\n" }}' in text and '{{ "<|im_end|>\\n<|im_start|>assistant\\n" }}' in text
    assert 'PARAMETER stop "<|im_end|>"\n' in text and "PARAMETER num_ctx 1024\n" in text
    assert "ADAPTER ./a.gguf\n" in modelfile(starter, "model.gguf", "a.gguf", 1024)


def test_a_question_that_begins_with_plain_text_ends_the_reply_too(starter: Subject, tokenizer: Any) -> None:
    tokenizer.chat_template = own_template("guanaco")
    turns = find_turns(tokenizer)
    assert turns is not None and stop_words(starter, tokenizer, turns) == ["<|im_end|>", "### Human:"]


def test_a_template_that_is_not_made_of_turns_is_refused(starter: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    (starter.adapter / "chat_template.jinja").write_text(SHOUTS, encoding="utf-8")
    with pytest.raises(ExportError, match="needs one written for it by hand"):
        modelfile(starter, "model.gguf", None, 1024)


@pytest.mark.full
def test_base_and_adapter_for_ollama_are_proved_by_llama_cpp(tiny: Path, tmp_path: Path) -> None:
    from core.export.make import export
    from core.export.order import Order
    from core.workspace import Workspace
    from tests.core.export.made import run_with_adapter

    workspace = Workspace.open(tmp_path / "workspace")
    run = run_with_adapter(workspace, str(tiny))
    order = Order("ollama", tmp_path / "out", gguf_type="f32", adapter_only=True)
    told = export(workspace, run, order, lambda line, share: None)
    assert told["verified"]["equal"] == told["verified"]["prompts"] > 0
    assert "Nightly-run-No1-adapter.gguf" in told["files"] and "Modelfile" in told["files"]
    assert told["command"] == "ollama create nightly-run-no1 -f Modelfile && ollama run nightly-run-no1"
