"""Characters of a reply that the data masks are not trained on, whichever way the template's replies are found."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.check import check
from core.data.conversation import Conversation
from core.data.dataset import load
from core.data.rendering.render import Renderer
from core.data.rendering.template import Unrenderable
from core.recipe import DataSettings
from tests.core.data.rendered_rows import render_one
from tests.tiny import tiny_tokenizer

# Each as axolotl's documentation has them: the last character of a range is in it.
DETAIL = [{"begin_offset": 0, "end_offset": 14, "train": True}, {"begin_offset": 15, "end_offset": 21, "train": False}]
TALK = [
    {"role": "user", "content": "What is blue?"},
    {"role": "assistant", "content": "A kite is blue. SECRET and high", "train_detail": DETAIL},
    {"role": "user", "content": "And red?"},
    {"role": "assistant", "content": "A ball."},
]
BY_MARKS = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\\n' }}{%- if m['role'] == 'assistant' -%}"
    "{%- generation -%}{{ m['content'] + '<|im_end|>' }}{%- endgeneration -%}"
    "{%- else -%}{{ m['content'] + '<|im_end|>' }}"
    "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
BY_PREFIXES = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


def trained(tokenizer: Any, messages: list[dict[str, Any]], **settings: Any) -> str:
    rendered = render_one(Renderer(tokenizer, DataSettings(**settings)), Conversation(1, messages), 512)
    return str(tokenizer.decode([i for i, counts in zip(rendered.ids, rendered.trained, strict=True) if counts]))


@pytest.mark.parametrize("template", [BY_MARKS, BY_PREFIXES], ids=["speaker markers", "by prefixes"])
@pytest.mark.parametrize(
    ("train_on", "counts"),
    [
        ("replies", "A kite is blue.<|im_end|>A ball.<|im_end|>"),
        ("last_reply", "A ball.<|im_end|>"),
        (
            "everything",
            "<|im_start|>user\nWhat is blue?<|im_end|><|im_start|>assistant\nA kite is blue.<|im_end|>"
            "<|im_start|>user\nAnd red?<|im_end|><|im_start|>assistant\nA ball.<|im_end|>",
        ),
    ],
)
def test_masked_characters_do_not_count(tmp_path: Path, template: str, train_on: str, counts: str) -> None:
    tokenizer = tiny_tokenizer(tmp_path, template)
    assert trained(tokenizer, TALK, train_on=train_on) == counts


def test_a_template_that_trims_the_reply_moves_the_ranges_with_it(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, BY_PREFIXES.replace("m['content']", "(m['content'] | trim)"))
    shifted = [each | {key: each[key] + 2 for key in ("begin_offset", "end_offset")} for each in DETAIL]
    talk = [TALK[0], {**TALK[1], "content": "  A kite is blue. SECRET and high", "train_detail": shifted}]
    assert trained(tokenizer, talk) == "A kite is blue.<|im_end|>"


def test_a_template_that_rewrites_the_reply_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, BY_PREFIXES.replace("m['content']", "(m['content'] | upper)"))
    with pytest.raises(Unrenderable, match="its 'train_detail' does not match"):
        trained(tokenizer, TALK)


def test_what_is_masked_in_a_file_is_masked_in_training(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": TALK}))
    found = load(file, DataSettings())
    tokenizer = tiny_tokenizer(tmp_path, BY_MARKS)
    assert "SECRET" not in trained(tokenizer, found.usable[0].messages)
    assert check(file, DataSettings(), tokenizer).findings == []
