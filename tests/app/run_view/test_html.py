"""A run on the screen says what a person needs to know, and runs nothing that stands in its files."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from app.page import strip as page_strip
from app.run_view.drawings import RunDrawings
from app.runs import table_html as runs_table_html
from app.train import check_html
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.sizes import GIB
from core.system.process import process_started
from core.workspace import Workspace, write_json

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def _run(workspace: Workspace, name: str = "try", **status: Any) -> Run:
    run = create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "y", "name": "z"})
    run.write_status(**status)
    return run


def _training(workspace: Workspace, **status: Any) -> Run:
    alive = {"pid": os.getpid(), "pid_started": process_started(os.getpid()), "started": time.time() - 30}
    return _run(workspace, state="training", **{**alive, **status})


def _table(workspace: Workspace, opened: Run) -> str:
    return runs_table_html.RunsTable(workspace).page(runs_table_html.TableView(), opened.id).html


def test_while_it_trains_every_number_has_its_unit(workspace: Workspace) -> None:
    run = _training(workspace, step=10, total=40)
    for step in range(1, 11):
        run.append("metrics.jsonl", {"step": step, "time": step * 2.0, "loss": 1.5, "tokens_per_second": 1234.4})
    head = RunDrawings("cpu").parts(run)["head"]
    for said in (
        "Training",
        "10 of 40",
        "30 s",
        "remaining, about</label><b>1 min 00 s",
        "1,234 tokens/s",
        "nats per token",
    ):
        assert said in head
    assert 'aria-valuenow="25"' in head


def test_what_has_not_changed_is_the_same_text(workspace: Workspace) -> None:
    run, live = _run(workspace, state="stopped"), RunDrawings("cpu")
    assert live.parts(run) == live.parts(run)


def test_afterwards_it_says_what_changed(workspace: Workspace) -> None:
    run = _run(workspace, state="finished", step=40, total=40)
    figures = {"eval_loss_before": 4.0, "eval_loss": 1.0, "seconds": 75, "tokens_per_second": 900, "steps": 40}
    write_json(run.dir / "result.json", {**figures, "peak_bytes": {"process": GIB}, "budget_bytes": 2 * GIB})
    head = RunDrawings("cpu").parts(run)["head"]
    for said in ("4.000 → 1.000", "-75 %", "1 min 15 s", "900 tokens/s", "1.00 GiB", "of 2.00 GiB budget"):
        assert said in head


def test_an_evaluation_is_told_with_its_perplexity_while_it_learns_and_after(workspace: Workspace) -> None:
    run = _training(workspace, step=2, total=4)
    run.append("metrics.jsonl", {"step": 0, "time": 1.0, "eval_loss": 7.0, "eval_perplexity": 1096.6})
    run.append("metrics.jsonl", {"step": 2, "time": 2.0, "loss": 3.0})
    run.append("metrics.jsonl", {"step": 2, "time": 2.5, "eval_loss": 2.0, "eval_perplexity": 7.389})
    head = RunDrawings("cpu").parts(run)["head"]
    assert "<b>2.000</b><small>perplexity 7.4</small>" in head
    figures = {"eval_loss_before": 7.0, "eval_loss": 2.5, "eval_perplexity_before": 1096.6, "eval_perplexity": 12.18}
    told = {"best": {"step": 2, "eval_loss": 2.0}, "ended_early": "Stopped early at step 4 of 9: <b>."}
    write_json(run.dir / "result.json", {**figures, **told, "steps": 4})
    run.write_status(state="finished", step=4, total=9)
    head = RunDrawings("cpu").parts(run)["head"]
    for said in ("1,097 → 12.2", "<b>2.000</b><small>at step 2, also kept", "Stopped early at step 4 of 9: &lt;b&gt;."):
        assert said in head


@pytest.mark.parametrize("state", ["training", "finished", "failed"])
def test_warnings_stand_where_the_person_is_looking(workspace: Workspace, state: str) -> None:
    run = _training(workspace, step=2, total=4)
    run.write_status(state=state)
    for number in range(1, 6):
        run.event("warning", f"warning {number} {HOSTILE}")
        run.event("checkpoint", "nothing to warn of")
    parts = RunDrawings("cpu").parts(run)
    head = parts["head"]
    assert head.index("warning 5") < head.index("warning 4") < head.index("warning 3")
    assert "warning 2" not in head and "2 more" in head and "nothing to warn of" not in head
    assert parts["events"].count("nb-kind-warning") == 5
    assert HOSTILE not in head + parts["events"]


def test_answers_are_shown_as_they_change_with_those_in_the_middle_folded(workspace: Workspace) -> None:
    run = _run(workspace, state="stopped")
    for step in range(0, 90, 10):
        run.append("samples.jsonl", {"step": step, "prompt": "Who?", "answer": f"answer {step}"})
    says = RunDrawings("cpu").parts(run)["says"]
    places = [says.index(f"<span>answer {step}<") for step in range(80, -1, -10)]
    assert places == sorted(places), "the newest on top, the base's at the bottom"
    folded = says[says.index("<details>") : says.index("</details>")]
    assert "4 replies in between" in folded
    assert [step for step in range(0, 90, 10) if f"answer {step}<" in folded] == [10, 20, 30, 40]


def test_an_answer_that_stays_the_same_is_shown_once(workspace: Workspace) -> None:
    run = _run(workspace, state="stopped")
    for step, answer in ((0, "Hello."), (5, "Ahoy."), (10, "Ahoy."), (15, "Ahoy."), (20, "Arr.")):
        run.append("samples.jsonl", {"step": step, "prompt": "Who?", "answer": answer})
    says = RunDrawings("cpu").parts(run)["says"]
    assert says.count("Ahoy.") == 1 and "<i>step 5 to 15</i><span>Ahoy." in says and "<i>step 20</i>" in says


def test_a_failed_run_says_why_and_shows_the_logs_end(workspace: Workspace) -> None:
    run = _run(workspace, state="failed", message=f"Memory ran out. {HOSTILE}", step=3, total=9)
    (run.dir / "worker.log").write_text(f"first\nlast line {HOSTILE}\n")
    head = RunDrawings("cpu").parts(run)["head"]
    assert "Memory ran out." in head and "last line" in head and "3 of 9 steps" in head
    assert HOSTILE not in head


def test_a_worker_that_was_killed_is_interrupted(workspace: Workspace) -> None:
    run = _run(workspace, state="training", pid=2**22, pid_started=1.0)
    assert "Interrupted" in RunDrawings("cpu").parts(run)["head"]


def test_what_the_model_says_is_shown_and_never_run(workspace: Workspace) -> None:
    run = _run(workspace, name=HOSTILE, state="stopped")
    run.append("samples.jsonl", {"step": 0, "prompt": HOSTILE, "answer": "no"})
    run.append("samples.jsonl", {"step": 5, "prompt": HOSTILE, "answer": HOSTILE})
    run.event("info", HOSTILE)
    for html in [*RunDrawings("cpu").parts(run).values(), _table(workspace, run), runs_table_html.recipe(run)]:
        assert "<script" not in html
    says = RunDrawings("cpu").parts(run)["says"]
    assert says.index("step 5") < says.index("before")  # the newest on top


def test_tokens_say_their_id_and_whether_they_are_trained_on() -> None:
    found = {"row": 3, "rows": 9, "length": 2, "trained": 1, "max_length": 64, "truncated_here": False}
    tokens = [{"id": 7, "text": "<b>", "trained": False}, {"id": 8, "text": "hi\n", "trained": True}]
    html = check_html.preview({**found, "tokens": tokens})
    assert '<span class="nb-r" title="token 7">&lt;b&gt;</span>' in html
    assert '<span class="nb-t" title="token 8">hi' in html
    assert "row 3 of 9" in html


def test_the_check_says_what_is_wrong_and_which_rows_are_left_out() -> None:
    found = {
        "ok": False,
        "errors": [{"where": "budget", "message": "budget: too small."}],
        "data": {"rows": 3, "usable": 2, "evidence": "role/content", "dropped": [{"row": 2, "reason": HOSTILE}]},
        "compute_dtype": "float32",
        "because": "no AMX",
    }
    html = check_html.check(found)
    assert "Memory budget (budget): too small." in html and "2 of 3 usable" in html and "row 2: &lt;script" in html
    assert HOSTILE not in html


def test_the_strip_says_what_is_running(workspace: Workspace) -> None:
    run = _training(workspace, name="my try", step=5, total=10)
    strip = page_strip.strip("CPU · 2 cores", run, 2)
    assert "my try" in strip and "step 5 of 10" in strip and "2 waiting" in strip


def test_the_strip_carries_the_title_and_which_run_ended_last(workspace: Workspace) -> None:
    run = _training(workspace, name="Nibble <b>", step=90, total=200)
    ended = _run(workspace, HOSTILE, state="failed", message='The disk is "full".')
    assert page_strip.page_title(None) == "Nibble"
    assert page_strip.page_title(run) == "45 % · step 90 of 200 · Nibble <b> · Nibble"
    strip = page_strip.strip("CPU", run, 0, ended)
    assert 'data-title="45 % · step 90 of 200 · Nibble &lt;b&gt; · Nibble"' in strip
    assert f'data-run="{run.id}"' in strip and f'data-ended="{ended.id}"' in strip
    assert 'data-end="Failed · &lt;script' in strip and 'data-said="The disk is &quot;full&quot;."' in strip
    assert "data-ended" not in page_strip.strip("CPU", run, 0, run), "it goes on"
    run.request("stop")
    assert page_strip.page_title(run) == "Stopping · step 90 of 200 · Nibble <b> · Nibble"
    assert page_strip.page_title(_training(workspace, name="new")) == "preparing · new · Nibble"


def _pulse(run: Run, **changes: Any) -> None:
    said = {"pid": os.getpid(), "beat": 9, "at": time.monotonic(), "seconds": 3700.0, "doing": "step", "since": 1.0}
    said |= {"step": 57, "saved_step": 40, "last_step_seconds": 2.0, "usual": {"step": 2.0}, "card": {}}
    write_json(run.dir / "pulse.json", {**said, **changes})


def test_a_run_that_may_hang_says_so_and_what_to_do(workspace: Workspace) -> None:
    run = _training(workspace, step=57, total=200)
    _pulse(run, since=300.0)
    head = RunDrawings("cpu").parts(run)["head"]
    assert "No step for 5 min" in head and "its last checkpoint (step 40)." in head
    _pulse(run)
    assert "No step for" not in RunDrawings("cpu").parts(run)["head"]


def test_the_time_is_the_workers_own_whatever_the_clock_says(workspace: Workspace) -> None:
    run = _training(workspace, step=57, total=200, started=time.time() + 9000)
    assert "elapsed</label><b>0 s" in RunDrawings("cpu").parts(run)["head"]
    _pulse(run)
    assert "elapsed</label><b>1 h 01 min" in RunDrawings("cpu").parts(run)["head"]
    _pulse(run, pid=1)
    assert "elapsed</label><b>0 s" in RunDrawings("cpu").parts(run)["head"], "that was said by an earlier worker"


def test_a_run_that_stops_says_since_when_and_how_long_it_may_take(workspace: Workspace) -> None:
    run = _training(workspace, step=57, total=200)
    _pulse(run)
    run.request("stop")
    head = RunDrawings("cpu").parts(run)["head"]
    assert "Stopping since" in head and "saves its progress" in head
    assert "in 1 min 0" in head and "it will be killed" in head
    assert ">Stopping</span>" in head and "everything after step 40 is lost" in head
    _pulse(run, saved_step=None)
    assert "nothing has been saved yet, so everything is lost" in RunDrawings("cpu").parts(run)["head"]


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ({"temperature_celsius": 67.0, "power_watts": 284.6}, "GPU</label><b>67 °C</b><small>285 W"),
        ({"temperature_celsius": None, "power_watts": 284.6}, "GPU</label><b>285 W</b>"),
        ({"temperature_celsius": None, "power_watts": None}, ""),
    ],
)
def test_on_a_gpu_temperature_and_power_stand_with_the_rest(
    workspace: Workspace, card: dict[str, Any], shown: str
) -> None:
    run = _training(workspace, step=57, total=200)
    _pulse(run, card=card)
    head = RunDrawings("cuda").parts(run)["head"]
    assert shown in head and (shown or "GPU" not in head)


def test_a_run_in_the_queue_says_what_it_waits_for(workspace: Workspace) -> None:
    _training(workspace, name="at work")
    first, second = _run(workspace, "first"), _run(workspace, "second")
    os.utime(first.dir / "status.json", (1000, 1000))
    assert "It starts when “at work” has ended." in RunDrawings("cpu").parts(first)["head"]
    assert "1 run starts before it." in RunDrawings("cpu").parts(second)["head"]
