"""The proof of a GGUF and of a folder for Ollama: llama.cpp opens them, and what is wrong in their own words shows.

Each test spoils one thing as it was wrong once (CASES.md E1, E3, E5), and leaves all else as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from core.export.gguf import template as gguf_template
from core.export.gguf.families import TensorLayout
from core.export.ollama import modelfile
from core.export.pipeline import export
from core.export.proof.compare_texts import PROMPTS, TOKENS
from core.export.proof.divergence import LOGITS
from core.export.proof.report import NOT_OPENED, is_proved, lines
from core.export.proof.verify import job
from core.export.proof_worker import prove
from core.export.shared.destination import Broken
from core.export.shared.options import ExportOptions
from core.runs.store import Run
from core.setup import llama_cpp
from core.workspace import Workspace
from tests.core.export.llama_3 import llama_3
from tests.core.export.made import run_with_adapter
from tests.tiny import SHAPES, tiny_model

QUICK = {"most": 3, "new_tokens": 6}


def _say(line: str, share: float | None) -> None:
    """Stands where progress is told."""


@pytest.fixture(autouse=True)
def _few_answers_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mend that a test undoes is undone in this process alone, and 20 answers would say no more than three."""
    from core.export.proof import verify

    monkeypatch.setattr(verify, "in_a_new_process", lambda jobs, say: prove(jobs, say))
    monkeypatch.setattr(verify, "PROMPTS", 3)
    monkeypatch.setattr(verify, "job", lambda *given: job(*given, **QUICK))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Over a model with a first token and the date in its template, as Llama 3.2's."""
    folder = tmp_path_factory.mktemp("llama")
    return run_with_adapter(Workspace.open(folder / "workspace"), str(llama_3(folder / "base")))


def _exported(run: Run, to: Any, folder: Path) -> dict[str, Any]:
    return export(Workspace(run.workspace), run, ExportOptions(to, folder / "out", gguf_type="f32"), _say)


@pytest.mark.parametrize(("to", "by"), [("gguf", "llama.cpp"), ("ollama", "Ollama")])
def test_what_is_right_is_equal_in_every_line_of_the_program_that_opens_it(
    to: str, by: str, run: Run, tmp_path: Path
) -> None:
    verified = _exported(run, to, tmp_path)["verified"]
    checks = {check["name"]: check for check in verified["checks"] if check["by"] == by}
    assert {PROMPTS, TOKENS, "greedy replies"} <= checks.keys()
    assert all(check["equal"] == check["of"] for check in checks.values()), lines(verified)
    assert checks[PROMPTS]["of"] > 50 and is_proved(verified)


def test_a_comment_left_in_the_template_of_a_gguf_is_found_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E1."""
    monkeypatch.setattr(gguf_template, "plain_template", lambda template: "{# marks #} a comment #}" + template)
    with pytest.raises(Broken, match='the chat has .*, the export " a comment'):
        _exported(run, "gguf", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_first_token_doubled_in_ollama_is_found_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E3."""
    monkeypatch.setattr(modelfile, "without_begin_token", lambda turns, tokenizer: turns)
    with pytest.raises(Broken, match="begin_of_text"):
        _exported(run, "ollama", tmp_path)


def test_a_modelfile_that_lets_another_role_answer_is_found_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = modelfile.modelfile

    def spoilt(*given: Any) -> str:
        return written(*given).replace("<|start_header_id|>assistant", "<|start_header_id|>user")

    monkeypatch.setattr(modelfile, "modelfile", spoilt)
    with pytest.raises(Broken, match="the prompt of"):
        _exported(run, "ollama", tmp_path)


def test_a_local_rope_theta_that_the_file_does_not_carry_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E5: Gemma 3, whose local layers turn by another theta than llama.cpp takes where the file says nothing."""
    values = {
        "rope_local_base_freq": 300.0,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    monkeypatch.setitem(SHAPES, "gemma3_text", {**SHAPES["gemma3_text"], **values})
    run = run_with_adapter(Workspace.open(tmp_path / "workspace"), str(tiny_model(tmp_path / "base", "gemma3_text")))
    right = _exported(run, "gguf", tmp_path / "right")["verified"]
    assert is_proved(right), lines(right)
    monkeypatch.setattr(GGUFWriter, "add_rope_freq_base_swa", lambda self, value: None)
    with pytest.raises(Broken):
        _exported(run, "gguf", tmp_path / "wrong")


def test_without_llama_cpp_it_is_said_that_it_did_not_open_the_file_and_how_it_would(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "installed", lambda: False)
    verified = _exported(run, "gguf", tmp_path)["verified"]
    assert verified["equal"] == verified["prompts"] == 3
    (line,) = (line for line in lines(verified) if "llama.cpp" in line)
    assert (
        "nothing to compare, by llama.cpp. Not opened by llama.cpp: " in line
        and "python launch.py setup llama-cpp" in line
    )
    assert not is_proved(verified)
    assert NOT_OPENED in {check["name"] for check in verified["checks"]}


@pytest.mark.parametrize(
    ("family", "shape", "reason"),
    [
        ("gemma", {"head_dim": 16}, "architecture gemma is not supported"),
        ("qwen3", {"head_dim": 16}, "another head_dim from this GGUF than the base has"),
    ],
)
def test_what_transformers_does_not_read_of_a_gguf_is_not_proved_by_it(
    family: str, shape: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has other settings in their place, and what it would answer says nothing of the file."""
    monkeypatch.setattr(llama_cpp, "installed", lambda: False)
    monkeypatch.setitem(SHAPES, family, shape)
    run = run_with_adapter(Workspace.open(tmp_path / "workspace"), str(tiny_model(tmp_path / "base", family)))
    verified = _exported(run, "gguf", tmp_path)["verified"]
    assert verified["prompts"] == 0 and reason in verified["because"] and not is_proved(verified)
    assert "python launch.py setup llama-cpp" in verified["because"]


def test_weights_that_are_laid_out_wrongly_are_found_out_by_transformers_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of each matrix in the opposite order: what was written is read back, and is not the model."""
    monkeypatch.setattr(llama_cpp, "installed", lambda: False)
    monkeypatch.setattr(TensorLayout, "arranged", lambda self, name, tensor: tensor.flip(0))
    verified = export(Workspace(run.workspace), run, ExportOptions("gguf", tmp_path / "out", gguf_type="q8_0"), _say)
    (logits,) = (check for check in verified["verified"]["checks"] if check["name"] == LOGITS)
    assert logits["equal"] < logits["of"], logits
