"""A token that a model has no embedding for is found before anything looks it up; padding never is looked up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import core.train.loop as loop
from core.basemodel.find import find_model
from core.chat.prompts import ChatPrompt
from core.data.check import check
from core.errors import DataError, NibbleError
from core.generation.generate import answers
from core.launch.submit import submit
from core.model.load import load_base, load_tokenizer
from core.model.vocabulary import embedding_rows, pad_of
from core.preflight.training import training_for
from core.recipe import DataSettings, QuantizationSettings, make_recipe
from core.runs.chat_models import base_chat_model
from core.runs.tail import Tail
from core.system.hardware import Device
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly
from tests.tiny import chat_rows, tiny_tokenizer, write_jsonl

CPU = Device("cpu", "CPU", 2**34, 2**33)
TOOL, PAD = "<tool>", "[PAD]"


def _model(folder: Path, architecture: str = "llama", **config: Any) -> Path:
    """A random model with as many embeddings as its tokenizer had tokens before two were added."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": PAD})
    tokenizer.add_tokens([TOOL])
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
    sizes |= {"opt": {"ffn_dim": 128, "word_embed_proj_dim": 64}}.get(architecture, {"intermediate_size": 128})
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    made = AutoConfig.for_model(architecture, vocab_size=rows, **sizes, **ends)
    AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return folder


def _rows(folder: Path, *with_tool: int) -> Path:
    """Twenty conversations, of which those `with_tool`, counted from 1, hold the token that has no embedding."""
    rows = chat_rows(20)
    for number in with_tool:
        rows[number - 1]["messages"][1]["content"] += f" {TOOL}"
    return write_jsonl(folder / "rows.jsonl", rows)


def _recipe(model: Path, data: Path, **more: Any) -> Any:
    values = {"model": str(model), "data.path": str(data), "lora.rank": 4, "train.effective_batch": 4}
    values |= {"train.max_steps": 2, "evaluation.max_new_tokens": 3, "evaluation.prompts": ["hello", "hello there you"]}
    return make_recipe({**values, **more})


def test_the_check_names_the_token_and_the_rows(tmp_path: Path) -> None:
    found = find_model(str(_model(tmp_path / "m")))
    rows, recipe = embedding_rows(found), _recipe(tmp_path / "m", _rows(tmp_path, 3, 17))
    assert rows == json.loads((tmp_path / "m" / "config.json").read_text())["vocab_size"]
    tokenizer = load_tokenizer(found)
    training = training_for(recipe, Workspace.open(tmp_path / "w"), found)
    report = check(tmp_path / "rows.jsonl", DataSettings(), tokenizer, training)
    (finding,) = [each for each in report.findings if each.code == "no-embedding"]
    assert (finding.severity, finding.rows, finding.count) == ("error", [3, 17], 2)
    assert f"'{TOOL}' (id {rows + 1:,})" in finding.message
    assert f"only for the ids 0 to {rows - 1:,}" in finding.message
    clean = check(_rows(tmp_path), DataSettings(), tokenizer, training)
    assert not [each for each in clean.findings if each.code == "no-embedding"]


@pytest.mark.usefixtures("unlimited_afterwards")
def test_a_run_is_refused_before_its_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "load_base", lambda *args, **named: pytest.fail("it was loaded"))
    recipe = _recipe(_model(tmp_path / "m"), _rows(tmp_path, 17))
    run = submit(recipe, Workspace.open(tmp_path / "w"), QueueOnly())  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=rf"row 17: the token '{TOOL}' has the id \d+, but the model has embeddings only for"
    ):
        loop.train(run)


@pytest.mark.usefixtures("unlimited_afterwards")
@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_a_padding_token_without_an_embedding_trains_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    """Packed (llama) and padded (opt); the sample prompts are of different lengths, so one of them is padded."""
    recipe = _recipe(_model(tmp_path / "m", architecture), _rows(tmp_path))
    run = submit(recipe, Workspace.open(tmp_path / "w"), QueueOnly())  # type: ignore[arg-type]
    assert loop.train(run) == "finished"
    assert len([row for row in Tail(run.dir / "samples.jsonl").read() if row["step"] == 2]) == 2


def test_padded_prompts_answer_as_each_does_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    found = find_model(str(_model(tmp_path / "m")))
    tokenizer = load_tokenizer(found)
    model = load_base(found, QuantizationSettings(bits=16), CPU).eval()
    assert tokenizer.pad_token_id >= model.get_input_embeddings().num_embeddings
    asked = ["hello", "hello there, how are you? the quick brown fox"]
    plain = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32).eval()
    alone = []
    for text in asked:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).input_ids
        said = plain.generate(ids, do_sample=False, max_new_tokens=6, pad_token_id=0)[0, ids.shape[1] :]
        alone.append(tokenizer.decode(said, skip_special_tokens=True).strip())
    assert answers(model, tokenizer, asked, 6) == alone


def test_what_is_exported_is_filled_with_a_token_that_has_an_embedding(tmp_path: Path) -> None:
    found = find_model(str(_model(tmp_path / "m")))
    tokenizer = load_tokenizer(found)
    assert tokenizer.pad_token_id >= (embedding_rows(found) or 0) > tokenizer.eos_token_id
    assert pad_of(found, tokenizer) == tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(5)
    assert pad_of(found, tokenizer) == 5


def test_the_chat_refuses_a_message_with_it(tmp_path: Path) -> None:
    model = str(_model(tmp_path / "m"))
    prompt = ChatPrompt(base_chat_model(model), find_model(model))
    table = torch.nn.Embedding(embedding_rows(find_model(model)) or 0, 4)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=512))
    held: Any = SimpleNamespace(config=config, get_input_embeddings=lambda: table)
    assert prompt.ids([{"role": "user", "content": "hello"}], held)
    with pytest.raises(NibbleError, match=f"The conversation cannot be read by this model: the token '{TOOL}' has the"):
        prompt.ids([{"role": "user", "content": f"hello {TOOL}"}], held)


def test_a_config_whose_padding_token_has_no_embedding_is_loaded_without_it(tmp_path: Path) -> None:
    """transformers alone ends there with an assertion; without the token it computes what is computed here."""
    from transformers import AutoModelForCausalLM

    good, bad = _model(tmp_path / "good"), _model(tmp_path / "bad", pad_token_id=5000)
    with pytest.raises(AssertionError):
        AutoModelForCausalLM.from_pretrained(bad)
    ours = load_base(find_model(str(bad)), QuantizationSettings(bits=16), CPU).eval()
    plain = AutoModelForCausalLM.from_pretrained(good, dtype=torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(ours(input_ids=ids).logits, plain(input_ids=ids).logits)
