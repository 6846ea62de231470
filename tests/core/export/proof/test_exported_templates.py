"""Every template that trl ships, and each of Nibble's own: exported, it lays out what was trained, byte for byte.

And what was trained goes on from what the exported template asks.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.basemodel.find import FoundModel, find_model
from core.data.rendering.template import Template
from core.export.proof.compare_texts import GOES_ON, PROMPTS, TOKENS, WHOLE, hold_texts
from core.export.proof.conversations import ProofConversation, shape_of
from core.export.proof.readers.transformers import TransformersReader
from core.export.proof.reference import Reference
from core.export.shared.tokenizer_files import write_tokenizer
from core.recipe import DataSettings
from tests.chat_templates import OURS, TEMPLATES, TRLS
from tests.tiny import tiny_model

# Words of several templates' own; where a tokenizer has no such token, it is text like any other.
SPECIAL = {"bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _says(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
SKY = {"role": "tool", "name": "weather", "tool_call_id": "call12345", "content": "clear"}
SYSTEM = {"role": "system", "content": "Be brief."}
SHAPES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "one turn": ([_user("Is it hot?"), _says("It is.")], None),
    "several turns": ([_user("One?"), _says("1"), _user("Two?"), _says("2"), _user("Three?"), _says("3")], None),
    "a system prompt": ([SYSTEM, _user("Is it hot?"), _says("It is.")], None),
    "tools": ([_user("Oslo?"), _says("", tool_calls=[CALL]), SKY, _says("It is clear.")], [WEATHER]),
    "a thought": (
        [_user("Is it hot?"), _says("It is.", reasoning_content="It is July."), _user("So?"), _says("Ok.")],
        None,
    ),
    "odd white space": ([_user("\n  Is it\r\n hot?\n\n"), _says("  It\tis.\n")], None),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> FoundModel:
    """A model whose tokenizer gets the templates."""
    return find_model(str(tiny_model(tmp_path_factory.mktemp("base") / "tiny")))


def _exported(template: str, base: FoundModel, folder: Path) -> tuple[Reference, TransformersReader]:
    """A tokenizer trained with `template`, as a run saves it; and as an export's folder has it."""
    from core.model.load import load_tokenizer

    tokenizer = load_tokenizer(base)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.chat_template = template
    Template(tokenizer, DataSettings())
    tokenizer.save_pretrained(folder / "run")
    (folder / "out").mkdir()
    write_tokenizer(SimpleNamespace(tokenizer=folder / "run"), folder / "out")  # type: ignore[arg-type]
    reference = Reference(base, folder / "run", DataSettings())
    shutil.rmtree(folder / "run")
    return reference, TransformersReader(folder / "out", "transformers", _no_model)


def _no_model() -> Any:
    raise AssertionError("texts need no model")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_exported_template_lays_out_what_was_trained(name: str, base: FoundModel, tmp_path: Path) -> None:
    reference, reader = _exported(TEMPLATES[name], base, tmp_path)
    conversations = [ProofConversation(shape, shape_of(*about), *about) for shape, about in SHAPES.items()]
    checks = {check.name: check for check in hold_texts(reference, reader, conversations, lambda line, share: None)}
    for each in (PROMPTS, WHOLE, GOES_ON, TOKENS):
        assert checks[each].equal == checks[each].of, checks[each].because
    assert checks[PROMPTS].of >= 2 and checks[WHOLE].of >= 2
    assert "generation -%" not in (tmp_path / "out" / "chat_template.jinja").read_text("utf-8").replace("endgen", "gen")


def test_there_are_templates_to_try() -> None:
    assert len(TRLS) > 50 and len(OURS) >= 4
