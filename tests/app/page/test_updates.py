"""A tick that changes nothing sends nothing, and a browser that comes later gets everything."""

from __future__ import annotations

import gradio as gr
import pytest

from app.chat import layout as chat_layout
from app.context import Context
from app.runs import layout as runs_layout
from app.runs import table_html as runs_table_html
from app.runs import tick as runs_tick
from app.runs.events import opened_run
from app.runs.table_html import RunsTable, TableView
from app.train import layout as train_layout
from app.train import tick as train_tick
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.delete import remove
from core.runs.store import Run


def _ended(context: Context, name: str = "try", state: str = "stopped") -> Run:
    run = create_run(context.workspace, make_recipe({"name": name}), {"file": "x", "sha256": "y", "name": "z"})
    run.write_status(state=state, step=5, total=10)
    return run


@pytest.fixture
def runs_tab() -> runs_layout.RunsTab:
    with gr.Blocks():
        return runs_layout.build()


def test_the_train_tab_says_only_what_changed(train_tab: train_layout.TrainTab, context: Context) -> None:
    run, seen = _ended(context), {}
    first, drawn = train_tick.tick(train_tab, context, seen), train_tick.parts(context)
    assert train_tab.again in first and train_tick.tick(train_tab, context, seen) == {}
    run.append("metrics.jsonl", {"step": 1, "time": 1.0, "loss": 2.0})
    again = train_tick.parts(context)
    assert {name for name in again if again[name] != drawn[name]} - {"scale"} == {"loss"}
    assert train_tick.tick(train_tab, context, seen) == {}
    assert set(train_tick.tick(train_tab, context, {})) == set(first)


def test_what_all_browsers_share_is_no_part_of_a_tick(train_tab: train_layout.TrainTab, context: Context) -> None:
    _ended(context)
    assert set(train_tick.shared(train_tab)) == set(train_tick.parts(context))
    assert not set(train_tick.shared(train_tab).values()) & set(train_tick.outputs(train_tab))
    assert set(train_tick.tick(train_tab, context, {})) <= set(train_tick.outputs(train_tab))


def test_before_the_first_run_it_says_what_will_be_here(train_tab: train_layout.TrainTab, context: Context) -> None:
    shown = train_tick.parts(context)
    assert "Start training" in shown["head"] and shown["loss"] == ""
    assert train_layout.fill(train_tab, context)[train_tab.welcome].visible
    _ended(context)
    assert not train_layout.fill(train_tab, context)[train_tab.welcome].visible


def test_the_runs_tab_says_only_what_changed(runs_tab: runs_layout.RunsTab, context: Context) -> None:
    run, table, asked, seen = _ended(context), RunsTable(context.workspace), TableView(), {}
    first = {runs_tab.table, runs_tab.patch, runs_tab.to_train, runs_tab.tools, runs_tab.picks, runs_tab.compare}
    assert set(runs_tick.tick(runs_tab, context, table, "", asked, seen)) == first
    assert runs_tick.tick(runs_tab, context, table, "", asked, seen) == {}
    assert runs_tab.recipe in runs_tick.tick(runs_tab, context, table, run.id, asked, seen)
    assert runs_tick.tick(runs_tab, context, table, run.id, asked, seen) == {}


def test_of_the_table_only_the_rows_that_changed_are_sent(
    runs_tab: runs_layout.RunsTab, context: Context, monkeypatch: pytest.MonkeyPatch
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


def test_what_a_person_is_writing_is_left_alone(runs_tab: runs_layout.RunsTab, context: Context) -> None:
    run, table, seen = _ended(context), RunsTable(context.workspace), {}
    first = runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)
    assert first[runs_tab.name] == "try"
    run.write_labels("renamed elsewhere", "", [])
    run.write_status(state="failed")
    assert runs_tab.name not in runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)


def test_a_run_that_was_deleted_elsewhere_is_closed(runs_tab: runs_layout.RunsTab, context: Context) -> None:
    run, table, seen = _ended(context), RunsTable(context.workspace), {}
    runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)
    remove(context.workspace, run)
    assert opened_run(context, run.id) is None
    assert runs_tick.tick(runs_tab, context, table, run.id, TableView(), seen)[runs_tab.pane].visible is False


def test_the_chat_tab_follows_a_reply_that_nobody_here_asked_for(context: Context) -> None:
    with gr.Blocks():
        tab = chat_layout.build()
    talk, seen = context.talk, {}
    chat_layout.tick(tab, context, seen)
    assert chat_layout.tick(tab, context, seen) == {}
    talk.version += 1
    assert tab.chatbot in chat_layout.tick(tab, context, seen)
    assert chat_layout.tick(tab, context, seen) == {}
