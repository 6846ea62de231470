"""What an export's folder answers in a stranger's hands: plain peft, plain transformers, llama.cpp, by its files alone.

Written in fp32, so that only the computation's own rounding stands between the artefacts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.outside import plain
from tests.outside.cases import IN_FP32, STARTER, Case, in_odd_shards, made
from tests.outside.command import ask
from tests.outside.llama import Server

pytestmark = [pytest.mark.full, IN_FP32]
MOST = 24
QUESTIONS = ["how are you", "a red ball, a blue kite"]
SHAPES: dict[str, list[dict[str, str]]] = {
    "one turn": [{"role": "user", "content": QUESTIONS[0]}],
    "three turns": [
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "the lazy dog jumps"},
        {"role": "user", "content": "how are you"},
    ],
    "a system prompt": [
        {"role": "system", "content": "the quick brown fox"},
        {"role": "user", "content": "hello, how are you"},
    ],
}


@dataclass(frozen=True)
class Exported:
    """A run and what was made of it."""

    case: Case
    adapter: Path
    merged: Path
    gguf: Path
    answers: list[str]


@pytest.fixture(scope="module", params=["the starter", "DoRA and rsLoRA"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """All three exports of a run, and what the chat says."""
    folder = tmp_path_factory.mktemp("exports")
    if request.param == "the starter":
        case = made(folder / "here", STARTER, {"train.schedule": "constant"})
    else:
        base = in_odd_shards(folder / "base", "llama", torch.bfloat16)
        asked = {"lora.dora": True, "lora.scaling": "rank_stabilised", "train.schedule": "constant"}
        case = made(folder / "here", base, asked)
    run = case.run
    out = {kind: folder / kind for kind in ("adapter", "merged", "gguf")}
    more = {"adapter": [], "merged": ["--dtype", "float32"], "gguf": ["--type", "f32"]}
    greedy = ("--greedy", "--max-new-tokens", str(MOST))
    words = [("export", run.id, "--to", kind, "--out", str(where), *more[kind]) for kind, where in out.items()]
    words += [("chat", run.id, "--prompt", question, *greedy) for question in QUESTIONS]
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda each: ask(run.workspace, *each), words))
    return Exported(case, **out, answers=[each["text"] for each in told[len(out) :]])


def _by_peft(exported: Exported) -> tuple[Any, Any]:
    model = PeftModel.from_pretrained(exported.case.base(), str(exported.adapter)).eval()
    return model, AutoTokenizer.from_pretrained(exported.adapter)


def _merged(exported: Exported) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(exported.merged, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(exported.merged)


def _reply(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=MOST, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return str(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def _asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def test_the_adapter_answers_in_plain_peft_as_in_the_chat(exported: Exported) -> None:
    assert [_reply(*_by_peft(exported), _asked(question)) for question in QUESTIONS] == exported.answers


def test_the_merged_model_answers_in_plain_transformers_as_in_the_chat(exported: Exported) -> None:
    assert [_reply(*_merged(exported), _asked(question)) for question in QUESTIONS] == exported.answers


def test_the_gguf_answers_in_llama_cpp_as_in_the_chat(exported: Exported) -> None:
    server = Server(next(exported.gguf.glob("*.gguf")))
    assert [server.reply(_asked(question), MOST).strip() for question in QUESTIONS] == exported.answers


@pytest.mark.parametrize("shape", SHAPES)
def test_every_artefact_renders_a_conversation_as_the_base_does_and_answers_it_the_same(
    exported: Exported, shape: str
) -> None:
    messages = SHAPES[shape]
    base = AutoTokenizer.from_pretrained(exported.case.model)
    text = base.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = base(text, add_special_tokens=False)["input_ids"]
    replies = []
    for model, tokenizer in (_by_peft(exported), _merged(exported)):
        assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == text
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        assert asked["input_ids"] == ids
        replies.append(_reply(model, tokenizer, messages))
    server = Server(next(exported.gguf.glob("*.gguf")))
    assert server.prompt(messages) == text
    assert server.tokens(text) == ids
    assert {*replies, server.reply(messages, MOST).strip()} == {replies[0]}


def test_the_merged_weights_are_the_four_bit_ones_and_the_adapter_added_up(exported: Exported) -> None:
    """W + s·BA, and with DoRA each row of that brought to the length that was learned."""
    case, adapter = exported.case, plain.adapter_in(exported.case.run.dir / "adapter")
    found: dict[str, torch.Tensor] = {}
    for file in exported.merged.glob("*.safetensors"):
        found |= load_file(file)
    seen = 0
    for name, layer in plain.linear_layers(case.base()):
        a, b = (adapter[f"{plain.PREFIX}{name}.lora_{each}.weight"] for each in "AB")
        expected = layer.weight + case.scale * b @ a
        magnitude = adapter.get(f"{plain.PREFIX}{name}.lora_magnitude_vector")
        if magnitude is not None:
            expected = expected * (magnitude / expected.norm(dim=1))[:, None]
        assert (found[f"{name}.weight"] - expected).abs().max() < 1e-6
        assert (expected - layer.weight).abs().max() > 1e-3, "the adapter says something"
        seen += 1
    assert seen * 2 <= len(adapter)


def test_the_merged_models_logits_are_those_of_base_and_adapter_apart(exported: Exported) -> None:
    ids = torch.tensor([exported.case.conversations[0].ids])
    with torch.no_grad():
        merged = _merged(exported)[0](input_ids=ids).logits
        apart = exported.case.adapted(exported.adapter)(input_ids=ids).logits
    assert torch.allclose(merged, apart, rtol=1e-5, atol=1e-4)
