"""The Modelfile's template says what the model's own says, and the stop words are those of the chat."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from core.data.rendering.template import own_template
from core.export.ollama.modelfile import modelfile, ollama_card, said_stop, stop_words
from core.export.ollama.template import go_template
from core.export.ollama.template_turns import NoTurns, find_turns, pieces
from core.export.proof.gotemplate import GoError
from core.export.proof.gotemplate.functions import ollama
from core.export.proof.readers.modelfile import parse_modelfile
from core.export.proof.readers.ollama_template import OllamaTemplate
from core.export.shared.destination import ExportError
from core.export.shared.source import ExportSource
from core.model.load import load_tokenizer
from tests.chat_templates import TEMPLATES
from tests.core.export.made import run_with_adapter, source_with_adapter
from tests.core.export.prompts import LONG, ONE, PADDED, SEVERAL, SYSTEM, by_jinja

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
def starter(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """The starter with an adapter."""
    return source_with_adapter(tmp_path_factory.mktemp("starter"), "starter")


@pytest.fixture
def tokenizer(starter: ExportSource) -> Any:
    """Its tokenizer, to be given other templates."""
    return load_tokenizer(starter.base, starter.adapter)


@pytest.mark.parametrize(
    "template", [LLAMA_3, QWEN, *(own_template(n) for n in ("chatml", "guanaco", "llama-2", "alpaca"))]
)
def test_the_turns_of_known_templates_are_found_and_render_the_same(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    turns = find_turns(tokenizer)
    conversation = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    dated = "".join(
        date.today().strftime(part) if kind == "date" else part for kind, part in pieces(turns.render(conversation))
    )
    assert dated == tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)


def test_a_system_prompt_that_the_template_does_not_take_is_refused_by_ollama_in_words(tokenizer: Any) -> None:
    tokenizer.chat_template = GEMMA
    turns = find_turns(tokenizer)
    assert turns.begin_system is None
    template = OllamaTemplate(go_template(turns))
    with pytest.raises(GoError, match="this model takes no system prompt"):
        template.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert template.render([{"role": "user", "content": " Hi\n"}]).endswith(
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_of_trls_and_ours_is_written_for_ollama_and_says_there_what_it_says(
    name: str, tokenizer: Any
) -> None:
    tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    tokenizer.chat_template = TEMPLATES[name]
    turns = find_turns(tokenizer)
    template = OllamaTemplate(go_template(turns))
    for conversation in (ONE, SEVERAL, LONG, [*SYSTEM, *ONE], [*SYSTEM, *LONG], PADDED, [*SYSTEM, *PADDED]):
        meant = by_jinja(tokenizer, conversation)
        if meant is None:
            with pytest.raises(GoError, match="takes no system prompt"):
                template.render(conversation)
        else:
            assert template.render(conversation) == meant


def test_a_date_is_left_to_the_day_on_which_ollama_is_asked(tokenizer: Any) -> None:
    asks = "{{ strftime_now('%d %b %Y|%-d. %B %y|%m%%') }}"
    tokenizer.chat_template = asks + "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    said = go_template(find_turns(tokenizer))
    for day, written in (
        (date(2026, 5, 3), "03 May 2026|3. May 26|05%"),
        (date(2031, 12, 24), "24 Dec 2031|24. December 31|12%"),
    ):
        assert OllamaTemplate(said, ollama(day)).render(ONE) == f"{written}[user]Hi there[assistant]"
    tokenizer.chat_template = tokenizer.chat_template.replace("%d %b", "%A %d %b")
    with pytest.raises(NoTurns, match="writes the date as '%A %d %b"):
        go_template(find_turns(tokenizer))


def test_thoughts_that_the_template_drops_are_handed_out_apart_by_ollama(tokenizer: Any) -> None:
    """Ollama looks for `.Thinking` between two texts, within a range over .Messages (its thinking/template.go)."""
    for name, dropped in (("qwen3", True), ("qwen2_5", False)):
        tokenizer.chat_template = TEMPLATES[name]
        turns = find_turns(tokenizer)
        assert turns.drops_thoughts == dropped
        assert ("<think>{{ .Thinking }}</think>" in go_template(turns)) == dropped


def test_the_modelfile_of_the_starter_has_its_words(starter: ExportSource) -> None:
    text = modelfile(starter, "model.gguf", None, 1024)
    assert text.startswith('FROM ./model.gguf\nTEMPLATE """{{ $told := false }}')
    assert '{{ "<|im_start|>user\\n" }}' in text and '{{ "<|im_end|>\\n<|im_start|>assistant\\n" }}' in text
    assert 'PARAMETER stop "<|im_end|>"\n' in text and "PARAMETER num_ctx 1024\n" in text
    assert "ADAPTER ./a.gguf\n" in modelfile(starter, "model.gguf", "a.gguf", 1024)
    # What Ollama would add of its own is off, as it is in the chat.
    assert "PARAMETER top_k 0\nPARAMETER min_p 0\nPARAMETER repeat_penalty 1" in text


def test_what_a_modelfile_says_in_quotes_is_what_was_meant(starter: ExportSource, tokenizer: Any) -> None:
    odd = '{% for m in messages %}"\\say\u200b"\n[{{ m.role }}]\n{{ m.content }}\n{% endfor %}'
    tokenizer.chat_template = odd
    (starter.adapter / "chat_template.jinja").write_text(odd, encoding="utf-8")
    found = parse_modelfile(modelfile(starter, "model.gguf", None, 1024))
    assert OllamaTemplate(found.template or "").render(ONE) == by_jinja(tokenizer, ONE)
    assert found.parameters["stop"] == ["<|im_end|>"]  # with a letter that Ollama drops, the other would never be found
    assert said_stop('### "Human":\n') == 'PARAMETER stop """### "Human":\n"""'
    odd_stop = '"a\\n"\nb'
    assert parse_modelfile("FROM a\n" + said_stop(odd_stop)).parameters["stop"] == [odd_stop]


def test_the_readme_says_what_ollama_cannot_say_or_says_otherwise(starter: ExportSource) -> None:
    said = ollama_card(starter).usage
    assert "Tools are not in the Modelfile's template" in said and "ollama create" in said
    assert "currentDate" not in said  # the starter's template asks for no date


def test_a_question_that_begins_with_plain_text_ends_the_reply_too(starter: ExportSource, tokenizer: Any) -> None:
    tokenizer.chat_template = own_template("guanaco")
    turns = find_turns(tokenizer)
    assert stop_words(starter, tokenizer, turns) == ["<|im_end|>", "### Human:"]


def test_a_template_that_is_not_made_of_turns_is_refused(
    starter: ExportSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    (starter.adapter / "chat_template.jinja").write_text(SHOUTS, encoding="utf-8")
    with pytest.raises(ExportError, match="cannot be converted for Ollama"):
        modelfile(starter, "model.gguf", None, 1024)


@pytest.mark.full
def test_base_and_adapter_for_ollama_are_proved_by_llama_cpp(tiny: Path, tmp_path: Path) -> None:
    from core.export.pipeline import export
    from core.export.shared.options import ExportOptions
    from core.workspace import Workspace

    workspace = Workspace.open(tmp_path / "workspace")
    run = run_with_adapter(workspace, str(tiny))
    order = ExportOptions("ollama", tmp_path / "out", gguf_type="f32", adapter_only=True)
    told = export(workspace, run, order, lambda line, share: None)
    assert told["verified"]["equal"] == told["verified"]["prompts"] > 0
    assert "Nightly-run-No1-adapter.gguf" in told["files"] and "Modelfile" in told["files"]
    assert told["command"] == "ollama create nightly-run-no1 -f Modelfile && ollama run nightly-run-no1"
