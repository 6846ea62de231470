"""What `data check` and `data tokens` say a conversation becomes, against what trl's own SFTTrainer makes of it."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tests.outside.cases import STARTER
from tests.outside.command import ask
from tests.tiny import write_jsonl

pytestmark = pytest.mark.full
CONVERSATIONS = 20
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
_SAID = (
    "the quick brown fox, jumps over a lazy dog. Hello there! how are you? 3.14 red ball\nblue kite ünï 日本 <b> {x}"
)


def _rows() -> list[dict[str, Any]]:
    """One to three turns, every fourth with a system prompt; some letters are several tokens."""
    drawn = random.Random(1)
    words = _SAID.split(" ")

    def say() -> str:
        return " ".join(drawn.choices(words, k=drawn.randint(1, 9))).strip()

    rows = []
    for number in range(CONVERSATIONS):
        messages = [{"role": "system", "content": say()}] if number % 4 == 1 else []
        for _ in range(1 + number % 3):
            messages += [{"role": "user", "content": say()}, {"role": "assistant", "content": say()}]
        rows.append({"messages": messages})
    return rows


def _by_trl(model: Path, rows: list[dict[str, Any]], folder: Path) -> list[tuple[list[int], list[bool]]]:
    config = SFTConfig(
        output_dir=str(folder), assistant_only_loss=True, max_length=None, use_cpu=True, report_to="none"
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(STARTER),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    return [(row["input_ids"], [label != -100 for label in row["labels"]]) for row in trainer.train_dataset]


def _flat(told: list[dict[str, Any]]) -> tuple[list[int], list[bool]]:
    """Tokens that only together make a letter are told together."""
    ids = [each["id"] if isinstance(each["id"], list) else [each["id"]] for each in told]
    marks = [each["trained"] for each, some in zip(told, ids, strict=True) for _ in some]
    return sum(ids, []), marks


def _with(template: str, folder: Path) -> Path:
    """The starter with a template that trl ships."""
    model: Path = shutil.copytree(STARTER, folder / "model")
    if template != "its own":
        shutil.copy(TEMPLATES / f"{template}.jinja", model / "chat_template.jinja")
    return model


def _reply_by_reply(model: Path, rows: list[dict[str, Any]], folder: Path) -> list[tuple[list[int], list[bool]]]:
    """Of each row its replies, each learned at the end of a text of its own, one text behind the other.

    trl counts what a prompt ends with to the reply; `apply_chat_template` says how long the prompt is.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [
        [row["messages"][: at + 1] for at, each in enumerate(row["messages"]) if each["role"] == "assistant"]
        for row in rows
    ]
    learned = iter(_by_trl(model, [{"messages": text} for each in texts for text in each], folder))
    joined = []
    for each in texts:
        ids, marks = [], []
        for text, (own, by_trl) in zip(each, learned, strict=False):
            prompt = tokenizer.apply_chat_template(text[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
            assert own[: len(prompt)] == prompt
            ids += own
            marks += [mark and at >= len(prompt) for at, mark in enumerate(by_trl)]
        joined.append((ids, marks))
    return joined


@pytest.mark.parametrize(
    ("template", "by_trl"),
    [
        *((name, _by_trl) for name in ("its own", "llama3", "qwen3", "gemma3")),
        ("gptoss", _reply_by_reply),  # it ends the newest reply with another mark than earlier ones
    ],
)
def test_tokens_and_mask_are_those_that_trl_trains_on(template: str, by_trl: Any, tmp_path: Path) -> None:
    model, rows = _with(template, tmp_path), _rows()
    data = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    expected = by_trl(model, rows, tmp_path / "trl")
    asked = [("data", "check", data), *(("data", "tokens", data, "--row", str(row)) for row in (2, 15))]
    more = ("--model", str(model), "--max-length", "4096")
    with ThreadPoolExecutor(2) as pool:
        check, *shown = pool.map(lambda words: ask(tmp_path, *words, *more), asked)
    assert check["usable"] == CONVERSATIONS
    assert check["tokens"]["total"] == sum(len(ids) for ids, _ in expected)
    assert check["tokens"]["trained"] == sum(sum(marks) for _, marks in expected)
    for row, told in zip((2, 15), shown, strict=True):
        assert _flat(told) == expected[row - 1]
