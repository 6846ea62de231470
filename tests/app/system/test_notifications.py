"""While one is away: an address to tell is kept, tried, and never repeated where it could be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.system import notifications
from core.runs import notify
from core.untrusted.paths import Reach
from core.workspace import Workspace, write_json

SECRET = "a-secret"


@pytest.fixture
def section() -> notifications.NotificationParts:
    with gr.Blocks():
        return notifications.NotificationParts()


def test_an_address_is_kept_and_taken_back(context: Context, section: notifications.NotificationParts) -> None:
    said = notifications.keep_webhook(context, f"https://example.org/{SECRET}")
    assert "Saved" in said and SECRET not in said
    shown = notifications.fill(section, context)
    assert shown[section.webhook] == f"https://example.org/{SECRET}" and SECRET not in shown[section.message]
    assert "No webhook is set" in notifications.keep_webhook(context, " ")
    assert notifications.fill(section, context)[section.webhook] == ""


def test_what_cannot_be_an_address_is_refused(context: Context) -> None:
    said = notifications.keep_webhook(context, f"ftp://example.org/{SECRET}")
    assert "starting with https://" in said and SECRET not in said
    assert notify.wishes(context.workspace) == notify.Wishes()


def test_a_command_can_only_be_seen_here(context: Context, section: notifications.NotificationParts) -> None:
    write_json(notify.file_of(context.workspace), {"command": ["ring", "<b>"]})
    assert "Now: <code>ring &lt;b&gt;</code>" in notifications.fill(section, context)[section.message]
    notify.file_of(context.workspace).write_text("{half")
    assert "is not valid JSON" in notifications.fill(section, context)[section.message]


@pytest.mark.parametrize(
    ("troubles", "said"), [([], "The test was delivered"), (["It answered 500."], "It answered 500.")]
)
def test_it_can_be_tried_before_it_is_kept(
    context: Context, monkeypatch: pytest.MonkeyPatch, troubles: list[str], said: str
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(notify, "tell", lambda wanted, facts: told.append((wanted.webhook, facts["run"])) or troubles)
    *_, last = notifications.try_webhook(context, "https://example.org/x")
    assert said in last and told == [("https://example.org/x", "trial")]
    assert notify.wishes(context.workspace) == notify.Wishes()
    assert "Nothing to notify" in list(notifications.try_webhook(context, ""))[-1]


def test_where_others_reach_the_app_it_is_the_owners_alone(
    tmp_path: Path, section: notifications.NotificationParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(tmp_path)
    notify.set_webhook(workspace, f"https://example.org/{SECRET}")
    shared = Context.open(workspace, Reach.of(workspace, True))
    monkeypatch.setattr(notify, "tell", lambda *_: pytest.fail("somebody was told"))
    shown = notifications.fill(section, shared)
    for said in (
        shown[section.message],
        notifications.keep_webhook(shared, "https://evil.example"),
        *notifications.try_webhook(shared, "https://evil.example"),
    ):
        assert "Others can reach this page" in said and SECRET not in said
    assert shown[section.webhook] == ""
    assert notify.wishes(workspace).webhook == f"https://example.org/{SECRET}"
