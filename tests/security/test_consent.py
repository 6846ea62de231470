"""The consent to a model's own code on the page: to what was shown, and only by who is at the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.train import code_consent
from core.basemodel.code_consent import CodeFile, ModelCode, agreed_folder, code_of
from core.basemodel.find import find_model
from core.errors import NibbleError
from core.untrusted.paths import Reach
from core.workspace import Workspace
from tests.core.basemodel.model_folder import model_folder
from tests.security.canaries import own_code, program


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def model(workspace: Workspace, tmp_path: Path) -> Path:
    """One with code of its own."""
    (workspace.path / "models").mkdir(parents=True)
    folder = model_folder(workspace.path / "models" / "theirs")
    own_code(folder, program(tmp_path / "canary"))
    return folder


def _consents(workspace: Workspace, listening: bool = False) -> code_consent.Consents:
    with gr.Blocks():
        parts = code_consent.ConsentParts()
    return code_consent.Consents(parts, Context.open(workspace, Reach.of(workspace, listening)))


def _agreed(workspace: Workspace, model: Path) -> bool:
    code = code_of(find_model(str(model)))
    assert code is not None
    return agreed_folder(workspace, code) is not None


def _html(updates: dict[Any, Any]) -> str:
    return next(value for value in updates.values() if isinstance(value, str))


def test_what_was_shown_is_agreed_to(workspace: Workspace, model: Path, tmp_path: Path) -> None:
    consents = _consents(workspace)
    html = _html(consents.show(str(model)))
    code = code_of(find_model(str(model)))
    assert code is not None
    for file in code.files:
        assert file.name in html and file.sha256 in html
    assert "LlamaForCausalLM" in html
    assert not _agreed(workspace, model)
    consents.agree()
    assert _agreed(workspace, model)
    assert not (tmp_path / "canary").exists()


def test_nothing_is_agreed_to_that_was_not_shown(workspace: Workspace, model: Path) -> None:
    consents = _consents(workspace)
    with pytest.raises(NibbleError, match="no code to agree to"):
        consents.agree()
    consents.show(str(model))
    with (model / "modeling_own.py").open("a") as file:
        file.write("# since then\n")
    with pytest.raises(NibbleError, match="have changed since they were shown"):
        consents.agree()
    assert not _agreed(workspace, model)
    consents.show(str(model))
    consents.hide()
    with pytest.raises(NibbleError, match="no code to agree to"):
        consents.agree()


def test_nobody_agrees_from_elsewhere(workspace: Workspace, model: Path) -> None:
    consents = _consents(workspace, listening=True)
    assert "cannot agree to a model&#x27;s own code on this page" in _html(consents.show(str(model)))
    with pytest.raises(NibbleError, match="cannot agree to a model's own code on this page"):
        consents.agree()
    assert not _agreed(workspace, model)


def test_code_is_shown_as_text_and_hides_nothing() -> None:
    odd = "</pre><script>alert(1)</script> \u202e \u200b \x1b[2J"
    file = CodeFile("<img src=x onerror=alert(1)>.py", odd.encode())
    html = code_consent.code_html(ModelCode("m", None, "<b>m</b>", {}, (file,)))
    assert "<script" not in html and "<img" not in html and "<b>m</b>" not in html
    assert "\\u202e" in html and "\\u200b" in html and "\\u001b" in html
    assert "\u202e" not in html
    long = replace(file, content=b"a" * (code_consent.MOST_SHOWN + 7))
    assert "7 more characters" in code_consent.code_html(ModelCode("m", None, "m", {}, (long,)))
