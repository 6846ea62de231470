"""llama.cpp and Ollama feed the model what the chat feeds it; and each defect of a file shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from core.export.gguf import template as gguf_template
from core.export.gguf import tokenizer as gguf_tokenizer
from core.export.gguf import writer as gguf_writer
from core.export.gguf.families import TensorLayout, family_of
from core.export.gguf.writer import model_file, write_model
from core.export.merged.weights import MergedWeights
from core.export.ollama import modelfile as ollama_modelfile
from core.export.ollama.modelfile import modelfile
from core.export.proof.readers.llama_cpp import LlamaCppReader
from core.export.proof.readers.ollama import OllamaReader
from core.export.proof.readers.reader import CannotRender, Reader
from core.export.shared.source import ExportSource
from core.generation.generate import prompt_ids
from core.model.load import load_tokenizer
from core.system.hardware import device
from core.untrusted.template_marks import plain_template
from tests.chat_templates import TEMPLATES
from tests.core.export.llama_3 import llama_3
from tests.core.export.made import source_with_adapter
from tests.core.export.prompts import LONG, ONE, PADDED, SYSTEM, by_jinja
from tests.tiny import TEMPLATE, tiny_model

CONVERSATIONS = [
    [{"role": "user", "content": " Hello there,  ünï 日本!\n"}],
    [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "Yo\n"},
        {"role": "user", "content": "don't 12345"},
    ],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
]


def _write(source: ExportSource, folder: Path, adapter: bool = True) -> Path:
    weights = MergedWeights(source, "dequantised" if adapter else "original", device(), adapter)
    file = model_file(source, weights, TensorLayout(family_of(source.base.config), weights.config), "f32")
    folder.mkdir(parents=True, exist_ok=True)
    write_model(file, source, folder / "model.gguf", lambda line, share: None)
    return folder / "model.gguf"


def _ollama(source: ExportSource, folder: Path) -> OllamaReader:
    _write(source, folder)
    (folder / "Modelfile").write_text(modelfile(source, "model.gguf", None, 512), encoding="utf-8")
    return OllamaReader(folder, 512)


def _llama_cpp(source: ExportSource, folder: Path) -> LlamaCppReader:
    return LlamaCppReader(_write(source, folder), 512)


def _differs(reader: Reader, source: ExportSource) -> list[int]:
    """The conversations that the reader feeds the model otherwise than the chat does."""
    tokenizer = load_tokenizer(source.base, source.tokenizer)
    texts = [
        tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        for conversation in CONVERSATIONS
    ]
    found = []
    for number, (conversation, text) in enumerate(zip(CONVERSATIONS, texts, strict=True)):
        said = reader.rendered(conversation)
        if said != text or reader.tokens(said) != prompt_ids(tokenizer, conversation, 10_000):
            found.append(number)
    return found


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """A run over such a model."""
    folder = tmp_path_factory.mktemp("llama")
    return source_with_adapter(folder, str(llama_3(folder / "base")))


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """A run over a model whose tokenizer adds a first token that its template leaves out."""
    folder = tmp_path_factory.mktemp("chatml")
    return source_with_adapter(folder, str(llama_3(folder / "base", TEMPLATE.replace("im_", "start_header_"))))


@pytest.mark.parametrize("opened", [_llama_cpp, _ollama])
def test_llama_3_with_its_first_token_its_date_and_its_trimming_is_fed_as_in_the_chat(
    opened: Callable[[ExportSource, Path], Reader], llama: ExportSource, tmp_path: Path
) -> None:
    assert _differs(opened(llama, tmp_path), llama) == []


@pytest.mark.parametrize("opened", [_llama_cpp, _ollama])
def test_a_first_token_that_the_template_leaves_out_is_not_added(
    opened: Callable[[ExportSource, Path], Reader],
    chatml: ExportSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _differs(opened(chatml, tmp_path), chatml) == []
    monkeypatch.setattr(gguf_tokenizer, "adds_begin_token", lambda tokenizer: True)
    assert _differs(opened(chatml, tmp_path / "again"), chatml) == [0, 1, 2]


# Told by llama.cpp that the model may think, or which day it is, these would say what the chat does not.
QUICK = ("gemma4_v5", "qwen3_5_nothink", "llama3_1", "qwen3", "gptoss")


@pytest.mark.parametrize(
    "name", [each if each in QUICK else pytest.param(each, marks=pytest.mark.full) for each in TEMPLATES]
)
def test_llama_cpps_own_template_engine_says_what_the_chat_says_with_every_template(
    name: str, llama: ExportSource, tmp_path: Path
) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(llama.tokenizer, folder)
    tokenizer = load_tokenizer(llama.base, folder)
    tokenizer.chat_template = plain_template(TEMPLATES[name])  # its comments are tried elsewhere
    tokenizer.save_pretrained(folder)
    reader = _llama_cpp(replace(llama, tokenizer_at=folder), tmp_path / "out")
    for conversation in (ONE, LONG, [*SYSTEM, *LONG], PADDED):
        meant = by_jinja(tokenizer, conversation)
        if meant is None:  # of a system prompt that it does not take llama.cpp makes a part of the question
            assert conversation[0] == SYSTEM[0]
        else:
            assert reader.rendered(conversation) == meant


def test_several_templates_go_into_the_file_by_name(llama: ExportSource, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(llama.base, llama.tokenizer)
    tokenizer.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools }}"}
    writer = GGUFWriter(tmp_path / "some.gguf", "llama")
    writer.add_chat_template(gguf_template.gguf_template(tokenizer))
    written = {key: value.value for part in writer.kv_data for key, value in part.items()}
    assert written["tokenizer.chat_template"] == "{{ messages[0].content }}"
    assert written["tokenizer.chat_template.tool_use"] == "{{ tools }}"


def test_stop_words_are_single_tokens_and_nothing_else(llama: ExportSource, tmp_path: Path) -> None:
    reader = _ollama(llama, tmp_path)
    stop = reader.modelfile.parameters["stop"]
    assert stop == ["<|eot_id|>"] and [len(reader.engine.tokens(each)) for each in stop] == [1]


def test_a_first_token_doubled_in_ollama_shows(
    llama: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ollama_modelfile, "without_begin_token", lambda turns, tokenizer: turns)
    reader = _ollama(llama, tmp_path)
    assert _differs(reader, llama) == [0, 1, 2]
    assert reader.tokens(reader.rendered(CONVERSATIONS[0]))[:3] == [1, 1, 3]


def test_a_first_token_cut_in_two_literals_shows(llama: ExportSource, tmp_path: Path) -> None:
    reader = _ollama(llama, tmp_path)
    text = (tmp_path / "Modelfile").read_text("utf-8")
    whole = '{{ "<|start_header_id|>system'
    assert whole in text
    cut = text.replace(whole, '{{ "<|begin_of_text" }}{{ "|><|start_header_id|>system')
    (tmp_path / "Modelfile").write_text(cut, encoding="utf-8")
    assert _differs(OllamaReader(tmp_path, 512), llama) == [0, 1, 2] and _differs(reader, llama) == []


def test_a_piece_of_a_comment_in_the_files_template_shows(
    llama: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_template, "plain_template", lambda template: "{# marks #} a comment #}" + template)
    assert _differs(_llama_cpp(llama, tmp_path), llama) == [0, 1, 2]


@pytest.mark.parametrize("defect", ["merge", "splitting"])
def test_a_vocabulary_that_splits_otherwise_shows(
    defect: str, llama: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if defect == "splitting":
        monkeypatch.setattr(gguf_tokenizer, "_split_name", lambda spelt: "qwen2")
    else:
        whole = gguf_writer.read_vocabulary

        def less(folder: Path, size: int) -> Any:
            vocabulary = whole(folder, size)
            vocabulary.merges.pop(2)
            return vocabulary

        monkeypatch.setattr(gguf_writer, "read_vocabulary", less)
    assert _differs(_llama_cpp(llama, tmp_path), llama)


def test_a_wrong_token_that_ends_replies_shows(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_model(tmp_path / "base")
    whole = _llama_cpp(source_with_adapter(tmp_path / "first", str(base)), tmp_path / "whole")
    asked = [whole.tokens(whole.rendered([{"role": "user", "content": letter}])) for letter in "abcd"]
    replies = [(ids, whole.reply(ids, 12)) for ids in asked]
    # The first token of a reply that is said late and is in the vocabulary.
    late = ((ids, said, n) for ids, said in replies for n in range(2, len(said)) if said[n] not in said[:n])
    ids, said, end = next((ids, said, n) for ids, said, n in late if said[n] in range(3, 320))
    for file, change in (("tokenizer.json", _name_end), ("tokenizer_config.json", _name_end_in_config)):
        spelt = json.loads((base / file).read_text("utf-8"))
        change(spelt, said[end], json.loads((base / "tokenizer.json").read_text("utf-8")))
        (base / file).write_text(json.dumps(spelt), encoding="utf-8")
    source = source_with_adapter(tmp_path / "second", str(base))
    assert _llama_cpp(source, tmp_path / "right").reply(ids, 12) == said[: end + 1]
    monkeypatch.setattr(gguf_writer, "stop_tokens", lambda source, tokenizer: [0])
    wrong = lambda self, token: self.add_uint32("tokenizer.ggml.eos_token_id", 0)  # noqa: E731
    monkeypatch.setattr(GGUFWriter, "add_eos_token_id", wrong)
    assert len(_llama_cpp(source, tmp_path / "wrong").reply(ids, 12)) > end + 1


def _name_end(spelt: dict[str, Any], token: int, vocabulary: dict[str, Any]) -> None:
    text = next(text for text, number in vocabulary["model"]["vocab"].items() if number == token)
    like = spelt["added_tokens"][0]
    spelt["added_tokens"].append({**like, "id": token, "content": text})


def _name_end_in_config(spelt: dict[str, Any], token: int, vocabulary: dict[str, Any]) -> None:
    spelt["eos_token"] = next(t for t, number in vocabulary["model"]["vocab"].items() if number == token)


def test_a_conversation_is_laid_out_to_be_answered_or_as_it_is_and_refusals_are_told(
    llama: ExportSource, tmp_path: Path
) -> None:
    reader = _llama_cpp(llama, tmp_path)
    tokenizer = load_tokenizer(llama.base, llama.tokenizer)
    for prompt in (True, False):
        meant = tokenizer.apply_chat_template(CONVERSATIONS[1], tokenize=False, add_generation_prompt=prompt)
        assert reader.rendered(CONVERSATIONS[1], None, prompt) == meant
    (tmp_path / "Modelfile").write_text(modelfile(llama, "model.gguf", None, 512), encoding="utf-8")
    with pytest.raises(CannotRender, match="only to answer"):
        OllamaReader(tmp_path, 512).rendered(CONVERSATIONS[1], None, False)
    with pytest.raises(CannotRender, match="takes no tools"):
        OllamaReader(tmp_path, 512).rendered(CONVERSATIONS[1], [{"type": "function", "function": {"name": "f"}}])
    for rest, said in (
        ("TEMPLATE {{ toJson .Messages }}", "calls toJson"),
        ("PARAMETER top_p 1", "has no TEMPLATE"),
        ("RENDERER qwen3-coder", "RENDERER qwen3-coder' is not understood"),
    ):
        (tmp_path / "Modelfile").write_text(f"FROM ./model.gguf\n{rest}", encoding="utf-8")
        with pytest.raises(CannotRender, match=said):
            OllamaReader(tmp_path, 512)


def test_a_stop_word_of_plain_text_ends_a_reply_in_ollama(tmp_path: Path) -> None:
    source = source_with_adapter(tmp_path, "starter")  # its base alone says words
    _write(source, tmp_path / "out", adapter=False)
    (tmp_path / "out/Modelfile").write_text(modelfile(source, "model.gguf", None, 512), encoding="utf-8")
    reader = OllamaReader(tmp_path / "out", 512)
    ids = reader.tokens(reader.rendered([{"role": "user", "content": "Tell me a short story."}]))
    text = reader.engine.text(reader.reply(ids, 24))
    word = text.split()[2]
    reader.modelfile.parameters["stop"] = [word]
    said = reader.engine.text(reader.reply(ids, 24))
    assert word not in said and text.startswith(said) and len(text[: text.index(word)]) - len(said) < len(word)
