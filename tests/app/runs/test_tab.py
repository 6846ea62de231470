"""The Runs tab: labels are kept, a resume is refused in place, a run is deleted knowingly, runs are compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.runs import layout as runs_layout
from app.runs import table_html as runs_table_html
from app.runs import tick as runs_tick
from app.runs.events import RunsEvents
from app.runs.table_html import RunsTable, TableView
from core.errors import RunError
from core.runs import delete, queue
from core.runs.find import list_runs
from core.runs.manifest import write_manifest
from core.runs.store import Run
from core.workspace import write_json
from tests.ended import ended_run


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_table_html, "FRESH_SECONDS", 0.0)


@pytest.fixture
def tab() -> runs_layout.RunsLayout:
    with gr.Blocks():
        return runs_layout.RunsLayout()


@pytest.fixture
def events(tab: runs_layout.RunsLayout, context: Context) -> RunsEvents:
    return RunsEvents(tab, context)


def _with_checkpoint(run: Run, step: int) -> Run:
    folder = run.dir / "checkpoints" / str(step)
    folder.mkdir()
    progress = {"recipe": run.recipe().model_dump(), "total": step}
    write_json(folder / "progress.json", progress)
    write_manifest(folder, step)
    return run


def _tick(tab: runs_layout.RunsLayout, context: Context, opened: str, asked: TableView | None = None) -> dict[Any, Any]:
    return runs_tick.tick(tab, context, RunsTable(context.workspace), opened, asked or TableView(), {})


def test_a_press_opens_sorts_turns_and_picks(events: RunsEvents, context: Context) -> None:
    run = ended_run(context.workspace, "one")

    def press(act: str, value: str) -> tuple[TableView, str]:
        return events.press(TableView(), "", gr.EventData(None, {"act": act, "value": value}))

    assert press("open", run.id) == (TableView(), run.id)
    assert press("sort", "eval") == (TableView(sort="eval", down=False), "")
    assert press("pick", run.id)[0].picked == (run.id,)


def test_what_is_written_on_a_run_is_kept_and_shown(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context
) -> None:
    run = ended_run(context.workspace, "one")
    assert "Saved" in events.label(run.id, "  two ", "good, night ,, good", "a note")
    assert run.labels() == {"name": "two", "note": "a note", "tags": ["good", "night"]}
    shown = _tick(tab, context, run.id)
    assert (shown[tab.name], shown[tab.tags], shown[tab.note]) == ("two", "good, night", "a note")
    assert "a note" in shown[tab.noted]
    assert "too many" in events.label(run.id, "two", ",".join("abcdefghijklmn"), "")
    delete.remove(context.workspace, run)
    assert "deleted elsewhere" in events.label(run.id, "three", "", "")


def test_a_run_with_a_checkpoint_can_be_resumed_longer(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(context.supervisor), "advance", lambda self: None)
    run = _with_checkpoint(ended_run(context.workspace, "one", steps=8), 8)
    assert _tick(tab, context, run.id)[tab.resume].visible
    offered = events.ask_to_resume(run.id)
    assert (offered[tab.steps].value, offered[tab.rate].value) == (8, run.recipe().train.learning_rate)
    epochs = offered[tab.epochs].value
    refused = events.resume(run.id, epochs, 8, run.recipe().train.learning_rate)
    assert "is finished: all of its 8 steps are done" in refused[tab.message] and "--set" not in refused[tab.message]
    assert run.status().state == "finished"
    assert "Added to the queue" in events.resume(run.id, epochs, 16, 1e-5)[tab.message]
    assert (run.recipe().train.max_steps, run.recipe().train.learning_rate) == (16, 1e-5)
    assert run.status().state == "queued"


def test_a_run_without_a_checkpoint_offers_no_resume_and_says_why(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context
) -> None:
    run = ended_run(context.workspace, "one")
    assert not _tick(tab, context, run.id)[tab.resume].visible
    assert "has no complete checkpoint" in events.resume(run.id, 3.0, 80, 1e-4)[tab.message]


def test_deleting_says_what_it_frees_and_takes_it_out_of_everything(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context
) -> None:
    run, other = ended_run(context.workspace, "one <b>"), ended_run(context.workspace, "two")
    _with_checkpoint(run, 8)
    (run.dir / "checkpoints" / "8" / "large").write_bytes(b"x" * 3_000_000)
    question = events.ask_to_delete(run.id)[tab.question]
    assert "This frees 3.0 MB and deletes 1 checkpoint and its metrics." in question and "<b>" not in question
    both = TableView(picked=(run.id, other.id), compared=(run.id, other.id))
    after = events.delete(run.id, both)
    assert after[tab.asked] == replace(both, picked=(other.id,), compared=(other.id,))
    assert after[tab.opened] == "" and not run.dir.exists()
    assert [each.id for each in list_runs(context.workspace)] == [other.id]
    assert "already deleted" in events.delete(run.id, both)[tab.message]


def test_a_run_that_was_resumed_meanwhile_is_not_deleted(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context
) -> None:
    run = ended_run(context.workspace, "one")
    events.ask_to_delete(run.id)
    run.write_status(state="queued")
    assert "may have been resumed" in events.delete(run.id, TableView())[tab.message]
    assert run.dir.exists()
    with pytest.raises(RunError, match="has not ended"):
        delete.remove(context.workspace, run)


def test_nothing_but_an_opened_run_is_deleted(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context
) -> None:
    run = ended_run(context.workspace, "one")
    half = context.workspace.runs / f".new-{run.id}"
    run.dir.rename(half)
    for outside in ("", ".", "..", "../datasets", "../runs", half.name, str(half)):
        assert "already deleted" in events.delete(outside, TableView())[tab.message]
        for act in ("open", "pick"):
            assert events.press(TableView(), "", gr.EventData(None, {"act": act, "value": outside})) == (
                TableView(),
                "",
            )
    assert half.exists() and context.workspace.datasets.exists()


def test_runs_that_wait_are_moved_and_taken_out(
    events: RunsEvents, tab: runs_layout.RunsLayout, context: Context
) -> None:
    first, second = (ended_run(context.workspace, name, state="queued") for name in ("first", "second"))
    waiting = [run.id for run in queue.order(context.workspace)]
    assert (
        _tick(tab, context, waiting[1])[tab.sooner].visible and not _tick(tab, context, waiting[1])[tab.later].visible
    )
    assert events.move(waiting[1], -1) == ""
    assert [run.id for run in queue.order(context.workspace)] == waiting[::-1]
    assert "Removed from the queue" in events.stop(first.id)
    assert first.status().state == "stopped"
    assert "is not in the queue" in events.move(first.id, 1)
    assert second.status().state == "queued"


def test_picked_runs_are_compared_and_drawn_again_only_when_something_changed(
    tab: runs_layout.RunsLayout, context: Context
) -> None:
    one, two = (ended_run(context.workspace, name) for name in ("one", "two"))
    table, seen = RunsTable(context.workspace), {}
    asked = TableView(picked=(one.id, two.id), compared=(one.id, two.id))
    shown = runs_tick.tick(tab, context, table, "", asked, seen)
    assert shown[tab.compare].value == "Compare 2 runs" and shown[tab.compared].visible
    assert "Results" in shown[tab.comparison]
    assert runs_tick.tick(tab, context, table, "", asked, seen) == {}
    assert tab.comparison in runs_tick.tick(tab, context, table, "", replace(asked, along="tokens"), seen)
    assert runs_tick.tick(tab, context, table, "", replace(asked, compared=()), seen)[tab.compared].visible is False
    delete.remove(context.workspace, two)
    assert runs_tick.tick(tab, context, table, "", asked, seen).get(tab.comparison) is None
