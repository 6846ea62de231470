"""A GGUF gives back what was written, and llama.cpp itself answers from it as the chat does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from core.export.gguf.families import TensorLayout, family_of
from core.export.gguf.read_back import read_back, read_back_adapter
from core.export.gguf.tokenizer import read_vocabulary
from core.export.gguf.writer import adapter_tensors, model_file, write_adapter, write_model
from core.export.merged.weights import MergedWeights
from core.export.proof.divergence import LOGITS
from core.export.proof.llama_cpp import LlamaCpp
from core.export.proof.readers.llama_cpp import LlamaCppReader
from core.export.shared.destination import Broken, ExportError
from core.export.shared.source import ExportSource
from core.generation.generate import prompt_ids
from core.model.load import load_tokenizer
from core.system.hardware import device
from tests.core.export.made import same_answers, source_with_adapter
from tests.tiny import SHAPES, tiny_model

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"]
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello  there!\n"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "What is 12 + 30?"},
]
WORDS = ["Hello", " world", "\n\n", "12345", "  two", "ünï", "日本", "🙂", "don't", "a_b", "\t", "<|im_end|>", "x" * 30]
TEXTS = [
    "".join(WORDS[(start + step * n) % len(WORDS)] for n in range(6)) for start in range(13) for step in (1, 2, 3, 5)
]


def _nothing(line: str, share: float | None) -> None:
    """Stands where progress is told."""


def _written(
    source: ExportSource, path: Path, kind: Any = "f32", onto: Any = "dequantised", adapter: bool = True
) -> Any:
    weights = MergedWeights(source, onto, device(), adapter)
    file = model_file(source, weights, TensorLayout(family_of(source.base.config), weights.config), kind)
    write_model(file, source, path, _nothing)
    return file


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """The starter with an adapter."""
    return source_with_adapter(tmp_path_factory.mktemp("starter"), "starter")


@pytest.mark.parametrize(
    "family", [each if each == "qwen3" else pytest.param(each, marks=pytest.mark.full) for each in FAMILIES]
)
def test_a_family_answers_from_its_gguf_as_in_the_chat(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "mistral", {"sliding_window": 256})
    monkeypatch.setitem(SHAPES, "gemma", {"head_dim": 16})
    source = source_with_adapter(tmp_path, str(tiny_model(tmp_path / "base", family)))
    file = _written(source, tmp_path / "model.gguf")
    assert read_back(tmp_path / "model.gguf", file).largest_difference == 0.0
    found = same_answers(
        source, {"format": "gguf", "folder": str(tmp_path), "file": "model.gguf", "context": 512, "parameters": 0}
    )
    (logits,) = (check for check in found["checks"] if check["name"] == LOGITS)
    assert logits["by"] == "llama.cpp" and logits["equal"] == logits["of"] == 4, logits
    own = {key: found["llama_cpp"][key] for key in ("prompts", "equal", "ties", "parted")}
    assert own == {"prompts": 4, "equal": 4, "ties": 0, "parted": []} and found["equal"] == 4


def test_the_starters_gguf_has_llamas_names_and_llama_cpp_splits_and_lays_out_as_it_does(
    starter: ExportSource, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    _written(starter, path, "f16")
    names = {tensor.name for tensor in gguf.GGUFReader(path).tensors}
    layers = [f"blk.{n}.{part}.weight" for n in range(5) for part in ("attn_q", "ffn_gate", "attn_norm", "attn_output")]
    assert {"token_embd.weight", "output_norm.weight", *layers} <= names
    model, tokenizer = LlamaCpp(path, 256), load_tokenizer(starter.base, starter.adapter)
    assert len(TEXTS) >= 50
    for text in TEXTS:
        assert model.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids, text
    assert model.rendered(CONVERSATION) == tokenizer.apply_chat_template(
        CONVERSATION, tokenize=False, add_generation_prompt=True
    )


@pytest.mark.parametrize("kind", [pytest.param("bf16", marks=pytest.mark.full), "q8_0"])
def test_every_type_gives_each_number_back_within_its_rounding(
    kind: str, starter: ExportSource, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    file = _written(starter, path, kind)
    read = read_back(path, file)
    assert read.tensors == len(file.entries) == 47 and 0 < read.largest_difference < 0.01
    data = bytearray(path.read_bytes())
    data[-40] ^= 0x7F
    path.write_bytes(bytes(data))
    with pytest.raises(Broken, match="does not give"):
        read_back(path, file)


RANK_STABILISED = {"lora.scaling": "rank_stabilised", "lora.alpha": 5.0}


@pytest.mark.parametrize(
    "settings", [{}, pytest.param(RANK_STABILISED, marks=pytest.mark.full)], ids=["plain", "rslora"]
)
def test_base_and_adapter_apart_answer_in_llama_cpp_as_in_16_bits(settings: Any, tiny: Path, tmp_path: Path) -> None:
    source = source_with_adapter(tmp_path, str(tiny), **settings)
    _written(source, tmp_path / "base.gguf", onto="original", adapter=False)
    weights = MergedWeights(source, "original", device())
    layout = TensorLayout(family_of(source.base.config), weights.config)
    write_adapter(weights, layout, source, tmp_path / "adapter.gguf")
    meant = list(adapter_tensors(weights, layout, source.alpha))
    assert read_back_adapter(tmp_path / "adapter.gguf", meant).tensors == 28
    with_it = {
        "format": "gguf",
        "folder": str(tmp_path),
        "file": "base.gguf",
        "over": "adapter.gguf",
        "context": 512,
        "parameters": 0,
    }
    found = same_answers(source, with_it, "original")["llama_cpp"]
    assert found["equal"] == found["prompts"] == 4


def test_what_an_adapter_in_gguf_cannot_carry_is_said_with_what_can(tiny: Path, tmp_path: Path) -> None:
    for name, settings in {"dora": {"lora.dora": True}, "whole": {"lora.extra_modules": ["norm"]}}.items():
        source = source_with_adapter(tmp_path / name, str(tiny), **settings)
        weights = MergedWeights(source, "dequantised", device())
        with pytest.raises(ExportError, match="a merged GGUF can"):
            list(adapter_tensors(weights, TensorLayout(family_of(source.base.config), weights.config), 4.0))
    with pytest.raises(ExportError, match=r"A GGUF of a opt model cannot be made here; these can: llama, mistral"):
        family_of({"model_type": "opt"})


def test_a_tokenizer_that_splits_in_a_way_without_a_name_is_refused(starter: ExportSource, tmp_path: Path) -> None:
    spelt = json.loads((starter.adapter / "tokenizer.json").read_text("utf-8"))
    spelt["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spelt), "utf-8")
    with pytest.raises(ExportError, match="splits text in a way"):
        read_vocabulary(tmp_path, 2560)


def test_a_tokenizer_made_by_sentencepiece_splits_the_same_in_llama_cpp(tmp_path: Path) -> None:
    """BPE over characters with bytes for the unknown, as of Llama 2 and Gemma: scores come from the order of merges."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    text = ["the quick brown fox jumps over the lazy dog", "hello there, how are you?", "a red ball, a blue kite"] * 9
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    raw.train_from_iterator(text, trainers.BpeTrainer(vocab_size=440, special_tokens=special, show_progress=False))
    base = tiny_model(tmp_path / "base")
    spelt = json.loads(raw.to_str())
    spelt["added_tokens"] = [each for each in spelt["added_tokens"] if not each["content"].startswith("<0x")]
    raw = Tokenizer.from_str(json.dumps(spelt))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<|im_end|>")
    tokenizer.pad_token = "<unk>"
    tokenizer.chat_template = (base / "chat_template.jinja").read_text("utf-8")
    tokenizer.save_pretrained(base)
    source = source_with_adapter(tmp_path, str(base))
    _written(source, tmp_path / "model.gguf")
    model = LlamaCpp(tmp_path / "model.gguf", 64)
    for each in ["the quick fox", "hello there, ünï 日本", "a  red ball?", "jumps over", "xyz 123"]:
        assert model.tokens(each) == tokenizer(each, add_special_tokens=False).input_ids, each


@pytest.mark.parametrize("begins", ["<|im_start|>", "[INST] "])
def test_a_space_that_belongs_at_the_head_of_a_text_only_is_where_the_chat_has_it(begins: str, tmp_path: Path) -> None:
    """Llama 2's and Mistral's tokenizers as transformers saves them now: `prepend_scheme` is `first`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=440, special_tokens=special, show_progress=False)
    raw.train_from_iterator(["the quick brown fox", "hello there, how are you?"] * 9, trainer)
    base = tiny_model(tmp_path / "base")
    spelt = json.loads(raw.to_str())
    spelt["added_tokens"] = [each for each in spelt["added_tokens"] if not each["content"].startswith("<0x")]
    raw = Tokenizer.from_str(json.dumps(spelt))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<|im_end|>")
    tokenizer.pad_token = "<unk>"
    tokenizer.chat_template = begins + "{% for m in messages %}{{ m.content }} [/INST]{% endfor %}"
    tokenizer.save_pretrained(base)
    source = source_with_adapter(tmp_path, str(base))
    _written(source, tmp_path / "model.gguf")
    reader = LlamaCppReader(tmp_path / "model.gguf", 64)
    conversation = [{"role": "user", "content": "hello the fox"}]
    assert reader.tokens(reader.rendered(conversation)) == prompt_ids(tokenizer, conversation, 64)


def test_in_pairs_is_what_rotary_positions_of_neighbours_want() -> None:
    import torch

    from core.export.gguf.families import _in_pairs

    assert _in_pairs(torch.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(_in_pairs(torch.arange(8)[:, None], 1)[:, 0], [0, 4, 1, 5, 2, 6, 3, 7])
