"""While one is away: an address to tell is kept, tried, and never repeated where it could be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app import away
from core import notify
from core.workspace import Workspace, write_json

SECRET = "a-secret"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def section() -> away.Away:
    with gr.Blocks():
        return away.build()


def test_an_address_is_kept_and_taken_back(workspace: Workspace, section: away.Away) -> None:
    said = away._keep(workspace, f"https://example.org/{SECRET}")
    assert "Kept" in said and SECRET not in said
    shown = away.fill(section, workspace)
    assert shown[section.webhook] == f"https://example.org/{SECRET}" and SECRET not in shown[section.said]
    assert "No webhook is told" in away._keep(workspace, " ")
    assert away.fill(section, workspace)[section.webhook] == ""


def test_what_cannot_be_an_address_is_refused(workspace: Workspace) -> None:
    said = away._keep(workspace, f"ftp://example.org/{SECRET}")
    assert "begins with https://" in said and SECRET not in said
    assert notify.wishes(workspace) == notify.Wishes()


def test_a_command_can_only_be_seen_here(workspace: Workspace, section: away.Away) -> None:
    write_json(notify.file_of(workspace), {"command": ["ring", "<b>"]})
    assert "Now: <code>ring &lt;b&gt;</code>" in away.fill(section, workspace)[section.said]
    notify.file_of(workspace).write_text("{half")
    assert "is not JSON as it should be" in away.fill(section, workspace)[section.said]


@pytest.mark.parametrize(("troubles", "said"), [([], "It has been told"), (["It answered 500."], "It answered 500.")])
def test_it_can_be_tried_before_it_is_kept(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, troubles: list[str], said: str
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(notify, "tell", lambda wanted, facts: told.append((wanted.webhook, facts["run"])) or troubles)
    *_, last = away._try(workspace, "https://example.org/x")
    assert said in last and told == [("https://example.org/x", "trial")]
    assert notify.wishes(workspace) == notify.Wishes()
    assert "nobody to tell" in list(away._try(workspace, ""))[-1]
