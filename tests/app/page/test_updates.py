"""A tick that changes nothing sends nothing, and a browser that comes later gets everything."""

from __future__ import annotations

import gradio as gr
import pytest

from app.chat.wire import ChatTab
from app.context import Context
from app.runs import layout as runs_layout
from app.runs import table_html as runs_table_html
from app.runs import tick as runs_tick
from app.runs.events import opened_run
from app.runs.table_html import RunsTable, TableView
from app.train.wire import TrainTab
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.delete import remove
from core.runs.store import Run


def _ended(context: Context, name: str = "try", state: str = "stopped") -> Run:
    run = create_run(context.workspace, make_recipe({"name": name}), {"file": "x", "sha256": "y", "name": "z"})
    run.write_status(state=state, step=5, total=10)
    return run


@pytest.fixture
def runs_tab() -> runs_layout.RunsLayout:
    with gr.Blocks():
        return runs_layout.RunsLayout()


def test_the_train_tab_says_only_what_changed(train_tab: TrainTab, context: Context) -> None:
    run, seen = _ended(context), {}
    first, drawn = train_tab.tick(seen), train_tab.parts()
    assert train_tab.layout.run.again in first and train_tab.tick(seen) == {}
    run.append("metrics.jsonl", {"step": 1, "time": 1.0, "loss": 2.0})
    again = train_tab.parts()
    assert {name for name in again if again[name] != drawn[name]} - {"scale"} == {"loss"}
    assert train_tab.tick(seen) == {}
    assert set(train_tab.tick({})) == set(first)


def test_what_all_browsers_share_is_no_part_of_a_tick(train_tab: TrainTab, context: Context) -> None:
    _ended(context)
    assert set(train_tab.shared) == set(train_tab.parts())
    assert not set(train_tab.shared.values()) & set(train_tab.outputs)
    assert set(train_tab.tick({})) <= set(train_tab.outputs)


def test_before_the_first_run_it_says_what_will_be_here(train_tab: TrainTab, context: Context) -> None:
    shown = train_tab.parts()
    assert "Start training" in shown["head"] and shown["loss"] == ""
    assert train_tab.fill()[train_tab.layout.welcome].visible
    _ended(context)
    assert not train_tab.fill()[train_tab.layout.welcome].visible


def test_the_runs_tab_says_only_what_changed(runs_tab: runs_layout.RunsLayout, context: Context) -> None:
    run, table, asked, seen = _ended(context), RunsTable(context.workspace), TableView(), {}
    first = {runs_tab.table, runs_tab.patch, runs_tab.to_train, runs_tab.tools, runs_tab.picks, runs_tab.compare}
    assert set(runs_tick.tick(runs_tab, context, table, "", asked, seen)) == first
    assert runs_tick.tick(runs_tab, context, table, "", asked, seen) == {}
    assert runs_tab.recipe in runs_tick.tick(runs_tab, context, table, run.id, asked, seen)
    assert runs_tick.tick(runs_tab, context, table, run.id, asked, seen) == {}


def test_of_the_table_only_the_rows_that_changed_are_sent(
    runs_tab: runs_layout.RunsLayout, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_table_html, "FRESH_SECONDS", 0.0)
    kept, named = _ended(context, "keep"), _ended(context, "before")
    table, asked, seen = RunsTable(context.workspace), TableView(), {}
    runs_tick.tick(runs_tab, context, table, "", asked, seen)
    named.write_labels("after", "", [])
    (sent,) = runs_tick.tick(runs_tab, context, table, "", asked, seen).items()
    assert sent[0] is runs_tab.patch
    assert named.id in sent[1] and "after" in sent[1] and kept.id not in sent[1]
    kept.write_labels("kept", "", [])
    again = runs_tick.tick(runs_tab, context, table, "", asked, seen)[runs_tab.patch]
    assert "after" in again and "kept" in again, "a browser that is busy shows only the last of two"
    assert runs_tick.tick(runs_tab, context, table, "", asked, seen) == {}


def test_what_a_person_is_writing_is_left_alone(runs_tab: runs_layout.RunsLayout, context: Context) -> None:
    run, table, seen = _ended(context), RunsTable(context.workspace), {}
    first = runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)
    assert first[runs_tab.name] == "try"
    run.write_labels("renamed elsewhere", "", [])
    run.write_status(state="failed")
    assert runs_tab.name not in runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)


def test_a_run_that_was_deleted_elsewhere_is_closed(runs_tab: runs_layout.RunsLayout, context: Context) -> None:
    run, table, seen = _ended(context), RunsTable(context.workspace), {}
    runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)
    remove(context.workspace, run)
    assert opened_run(context, run.id) is None
    assert runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)[runs_tab.pane].visible is False


def test_the_chat_tab_follows_a_reply_that_nobody_here_asked_for(context: Context) -> None:
    tab, seen = ChatTab(context), {}
    with gr.Blocks():
        tab.build()
    tab.tick(seen)
    assert tab.tick(seen) == {}
    tab.conversation.version += 1
    assert tab.layout.chatbot in tab.tick(seen)
    assert tab.tick(seen) == {}
