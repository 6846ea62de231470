"""The sample datasets: what is shipped is what the script writes, and it reads as its format says."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from presets.datasets.build import files
from presets.datasets.checks import HELD_OUT
from presets.starter.example import Message

FOLDER = Path(__file__).parents[2] / "presets/datasets"
SAMPLES = yaml.safe_load((FOLDER / "samples.yaml").read_text())
ROLES = {"human": "user", "gpt": "assistant"}


def conversations(name: str) -> list[list[Message]]:
    """The rows of a sample as messages; an alpaca input follows its instruction."""
    sample = next(s for s in SAMPLES if s["name"] == name)
    text = (FOLDER / sample["file"]).read_text()
    if sample["format"] == "messages":
        return [json.loads(line)["messages"] for line in text.splitlines()]
    if sample["format"] == "alpaca":
        pairs = [(f"{r['instruction']}\n\n{r['input']}".strip(), r["output"]) for r in json.loads(text)]
    elif sample["format"] == "sharegpt":
        turns = [row["conversations"] for row in json.loads(text)]
        return [[{"role": ROLES[t["from"]], "content": t["value"]} for t in row] for row in turns]
    else:
        pairs = [(r["prompt"], r["completion"]) for r in csv.DictReader(text.splitlines())]
    return [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairs]


NAMES = [s["name"] for s in SAMPLES]


def test_the_files_are_exactly_what_the_script_writes():
    assert {s["file"] for s in SAMPLES} == set(files())
    for name, text in files().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run presets/datasets/build.py"


def test_every_sample_has_a_format_of_its_own():
    assert len({s["format"] for s in SAMPLES}) == len(SAMPLES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_enough_rows_and_none_twice(name):
    rows = conversations(name)
    assert len(rows) >= 200
    assert len({json.dumps(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_a_conversation_that_ends_with_a_reply(name):
    for row in conversations(name):
        assert [m["role"] for m in row] == ["user", "assistant"] * (len(row) // 2)
        assert all(m["content"].strip() == m["content"] != "" for m in row)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_and_sample_prompts_are_not_rows(name):
    asked = {m["content"] for row in conversations(name) for m in row if m["role"] == "user"}
    held_out = HELD_OUT[name](60)
    single = {e.prompt[-1]["content"] for e in held_out if len(e.prompt) == 1}
    assert len(held_out) >= 50
    assert len(single) >= 40
    assert not asked & single
    assert not asked & set(next(s for s in SAMPLES if s["name"] == name)["prompts"])


@pytest.mark.parametrize("name", NAMES)
def test_a_judge_accepts_the_right_reply_and_no_other(name):
    for example in HELD_OUT[name](60):
        reply = example.messages[-1]["content"]
        assert example.right(reply)
        assert not example.right(reply + " ")
        assert not example.right(reply[:-1])
