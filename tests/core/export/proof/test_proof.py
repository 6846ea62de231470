"""The proof cannot agree with itself: an export that is wrong in one of its own files is found out.

Each test spoils one thing as it was wrong once, or as others have shipped it, and leaves all else as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from core.export.adapter import write
from core.export.adapter.write import write_adapter
from core.export.pipeline import export
from core.export.proof import verify
from core.export.proof.compare_texts import GOES_ON, PROMPTS, TOKENS, WHOLE
from core.export.proof.divergence import LOGITS
from core.export.proof.reference import Reference
from core.export.proof.verify import job
from core.export.proof_worker import prove
from core.export.shared import tokenizer_files
from core.export.shared.destination import Broken
from core.export.shared.options import ExportOptions
from core.export.shared.source import ExportSource
from core.workspace import Workspace, read_json, write_json
from tests.core.export.made import run_with_adapter, source_with_adapter
from tests.tiny import TEMPLATE, tiny_model

pytestmark = pytest.mark.full  # minutes of models loaded, in all

# As trl's training templates begin: what is said of the marks stands in a comment.
COMMENTED = "{#- The reply stands between {% generation %} and {% endgeneration %}, for the mask. -#}\n" + TEMPLATE
DATED = "{{- 'Today: ' + strftime_now('%d %b %Y') + '\\n' -}}" + TEMPLATE
OPENS = "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"


def _say(line: str, share: float | None) -> None:
    """Stands where progress is told."""


def _old_plain_template(template: str) -> str:
    """As it was up to E1: it wrote into comments too, and closed them."""
    marks = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")
    return marks.sub(lambda mark: f"{{#{mark[1]} {mark[2]}#}}", template)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """An adapter over a tiny model."""
    folder = tmp_path_factory.mktemp("source")
    return source_with_adapter(folder, str(tiny_model(folder / "base")))


def _proved(source: ExportSource, folder: Path, spoil: Callable[[Path], None] = lambda folder: None) -> dict[str, Any]:
    """What the proof says of an exported adapter in `folder`, after `spoil` had its way with it."""
    folder.mkdir()
    write_adapter(source, folder)
    spoil(folder)
    asked = job(source, {"format": "adapter", "folder": str(folder)}, "dequantised", "float32", most=3, new_tokens=6)
    return prove([asked], _say)


def _change(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / name, {**read_json(folder / name), **values})


def _in_template(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "chat_template.jinja"
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new), "utf-8")

    return spoil


def _check(found: dict[str, Any], name: str) -> dict[str, Any]:
    checks = [*found["checks"], *(check for answer in found["answers"] for check in answer["checks"])]
    return next(check for check in checks if check["name"] == name)


def test_an_export_that_is_right_is_equal_in_every_line(source: ExportSource, tmp_path: Path) -> None:
    found = _proved(source, tmp_path / "out")
    assert "broken" not in found
    checks = [*found["checks"], *found["answers"][0]["checks"]]
    names = [PROMPTS, WHOLE, GOES_ON, TOKENS, "what ends a reply", "greedy replies", "logits"]
    assert [check["name"] for check in checks] == names
    assert all(check["equal"] == check["of"] > 0 for check in checks), checks
    assert {check["by"] for check in checks} == {"transformers and peft"}
    assert _check(found, PROMPTS)["of"] > 50, "all rows are laid out, though few are answered"


def test_a_template_with_a_piece_of_a_comment_at_its_head_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1: the marks were taken out of a comment, which was closed by it."""
    source = source_with_adapter(tmp_path, str(tiny_model(tmp_path / "base", template=COMMENTED)))
    monkeypatch.setattr(tokenizer_files, "plain_template", _old_plain_template)
    found = _proved(source, tmp_path / "out")
    assert re.search(r'at character 0 the chat has "<\|im_start\|>.*the export " and ', found["broken"])


def test_a_prompt_that_opens_a_thought_which_training_did_not_is_found_out(
    source: ExportSource, tmp_path: Path
) -> None:
    """E2."""
    found = _proved(source, tmp_path / "out", _in_template(OPENS, OPENS[:-4] + "<think>\\n' }}"))
    assert 'the chat has nothing more, the export "<think>\\n"' in found["broken"]
    assert _check(found, GOES_ON)["equal"] == 0 and "training has nothing more" in _check(found, GOES_ON)["because"]


def test_training_that_does_not_go_on_from_what_the_chat_asks_is_told_and_no_fault_of_the_export(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2 in the data: the mark of the role was trained as if the model had to write it."""
    trained = Reference.trained

    def with_the_mark(self: Reference, conversation: Any) -> Any:
        return [
            replace(layout, spans=[replace(span, start=span.start - len("assistant\n")) for span in layout.spans])
            for layout in trained(self, conversation)
        ]

    monkeypatch.setattr(Reference, "trained", with_the_mark)
    found = _proved(source, tmp_path / "out")
    goes_on = _check(found, GOES_ON)
    assert "broken" not in found and goes_on["equal"] == 0 < goes_on["of"]
    assert 'training has nothing more, the export "assistant\\n"' in goes_on["because"]


def test_a_template_that_trims_is_found_out(source: ExportSource, tmp_path: Path) -> None:
    trims = _in_template("message['content'] + '<|im_end|>\\n'", "message['content'] | trim + '<|im_end|>\\n'")
    found = _proved(source, tmp_path / "out", trims)
    assert "the prompt of one of odd white space and letters" in found["broken"]


def test_no_template_at_all_is_found_out(source: ExportSource, tmp_path: Path) -> None:
    found = _proved(source, tmp_path / "out", lambda folder: (folder / "chat_template.jinja").unlink())
    assert "the export cannot lay it out, and the chat can" in found["broken"]


def test_a_token_too_many_that_ends_a_reply_and_one_too_few_are_found_out(source: ExportSource, tmp_path: Path) -> None:
    ends = read_json(source.base_folder / "generation_config.json")["eos_token_id"]
    for name, wrong in (("few", ends + 1), ("many", [ends, ends + 1])):
        found = _proved(source, tmp_path / name, _change("generation_config.json", eos_token_id=wrong))
        assert f"the chat has [{ends}], the export" in found["broken"] or "nothing more" in found["broken"]
        assert _check(found, "what ends a reply")["equal"] == 0


def test_generation_settings_that_answer_otherwise_are_found_out(source: ExportSource, tmp_path: Path) -> None:
    found = _proved(source, tmp_path / "out", _change("generation_config.json", repetition_penalty=9.0))
    assert found["answers"][0]["equal"] < found["answers"][0]["prompts"] and found["answers"][0]["parted"]


def _spelt(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        spelt = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        change(spelt)
        (folder / "tokenizer.json").write_text(json.dumps(spelt), "utf-8")

    return spoil


def test_a_tokenizer_that_lost_an_added_token_is_found_out(tmp_path: Path) -> None:
    """One that the template writes, and one that no conversation holds."""
    base = tiny_model(tmp_path / "base")
    _spelt(lambda spelt: spelt["added_tokens"].append({**spelt["added_tokens"][-1], "id": 320, "content": "<rare>"}))(
        base
    )
    source = source_with_adapter(tmp_path, str(base))
    for lost in ("<|im_start|>", "<rare>"):

        def without(spelt: dict[str, Any], lost: str = lost) -> None:
            spelt["added_tokens"] = [each for each in spelt["added_tokens"] if each["content"] != lost]

        found = _proved(source, tmp_path / lost.strip("<|>"), _spelt(without))
        assert found["broken"].startswith("token ids, the "), lost
        assert ("the added tokens" in found["broken"]) == (lost == "<rare>")


def test_a_tokenizer_that_lost_its_normaliser_is_found_out(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    _spelt(lambda spelt: spelt.update(normalizer={"type": "NFC"}))(base)
    source = source_with_adapter(tmp_path, str(base))
    assert "broken" not in _proved(source, tmp_path / "whole")
    found = _proved(source, tmp_path / "out", _spelt(lambda spelt: spelt.update(normalizer=None)))
    assert found["broken"].startswith("token ids, the prompt of one of odd white space and letters")


def test_an_adapter_of_another_strength_is_found_out(source: ExportSource, tmp_path: Path) -> None:
    """By a hundredth, which no answer shows."""
    found = _proved(source, tmp_path / "out", _change("adapter_config.json", lora_alpha=source.alpha * 1.01))
    logits = _check(found, LOGITS)
    assert logits["equal"] == 0 < logits["of"] and "largest difference 0.0" in logits["because"]


def test_a_date_in_the_template_does_not_hinder_the_proof_at_midnight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime, timedelta

    from transformers.utils import chat_template_utils

    looked = [0]

    class Clock(datetime):
        """Each hundredth look is a day later."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            looked[0] += 1
            return datetime(2026, 11, 30) + timedelta(days=looked[0] // 101)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    source = source_with_adapter(tmp_path, str(tiny_model(tmp_path / "base", template=DATED)))
    found = _proved(source, tmp_path / "out")
    assert "broken" not in found and looked[0] > 400
    assert all(check["equal"] == check["of"] for check in found["checks"])


def test_a_shape_that_the_template_refuses_is_said_and_not_counted(tmp_path: Path) -> None:
    strict = TEMPLATE.replace(
        "{{ '<|im_start|>'",
        "{%- if message['role'] == 'system' -%}{{ raise_exception('no system here') }}{%- endif -%}{{ '<|im_start|>'",
        1,
    )
    source = source_with_adapter(tmp_path, str(tiny_model(tmp_path / "base", template=strict)))
    prompts = _check(_proved(source, tmp_path / "out"), PROMPTS)
    assert prompts["equal"] == prompts["of"] > 0
    assert prompts["because"] == "a system prompt: this template takes none (no system here)"


def test_a_run_on_plain_text_is_proved_by_its_tokens_and_plain_questions(tmp_path: Path) -> None:
    source = source_with_adapter(tmp_path, str(tiny_model(tmp_path / "base")))
    source.run.dataset_file().write_text(
        '{"text": "the quick brown fox jumps over the dog"}\n' * 3 + '{"text": "a red ball"}\n'
    )
    found = _proved(source, tmp_path / "out")
    assert "broken" not in found and _check(found, TOKENS)["equal"] == _check(found, TOKENS)["of"] > 10
    assert _check(found, PROMPTS)["of"] > 5, "the chat asks with a template all the same"


def test_an_export_with_a_wrong_text_is_not_handed_over_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command's own function, with the proof in this process."""
    workspace = Workspace.open(tmp_path / "workspace")
    run = run_with_adapter(workspace, str(tiny_model(tmp_path / "base")))

    def spoilt(source: Any, folder: Path) -> None:
        write_adapter(source, folder)
        _in_template("'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n\\n' }}")(folder)

    monkeypatch.setattr(write, "write_adapter", spoilt)
    monkeypatch.setattr(verify, "in_a_new_process", prove)
    with pytest.raises(Broken, match=r"Other programs would not see what was trained \(prompts as text, the prompt of"):
        export(workspace, run, ExportOptions("adapter", tmp_path / "out"), _say)
    assert not (tmp_path / "out").exists()


def test_weights_that_differ_are_still_found_by_the_answers(source: ExportSource, tmp_path: Path) -> None:
    def tripled(folder: Path) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({name: weight * 3 for name, weight in weights.items()}, folder / "adapter_model.safetensors")

    found = _proved(source, tmp_path / "out", tripled)["answers"][0]
    assert found["parted"] and found["equal"] < found["prompts"]
