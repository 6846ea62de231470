"""The plan follows the form: one question at a time, the latest wins, the last plan stays meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.train import budget_scale, plan_events, plan_session
from app.train import tick as train_tick
from app.train.plan_session import PlanSession
from app.train.wire import TrainTab
from core.errors import NibbleError
from core.recipe import Recipe, make_recipe
from core.sizes import GIB
from core.system.hardware import Device
from core.workspace import read_json
from tests.app.data.canned import memory_plan
from tests.waiting import until


class FakeHelper:
    """Answers `plan` with the rank as GiB of budget, once it is let go; refuses rank 13 and breaks at rank 14."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.assumed: list[str] = []

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        assert op == "plan"
        rank = arguments["recipe"]["lora"]["rank"]
        self.asked.append(rank)
        assert self.go.wait(10)
        if rank == 13:
            raise NibbleError("There is no model 'nobody'.")
        if rank == 14:
            raise KeyError("unforeseen")
        return memory_plan(budget_bytes=rank * GIB, assumed=self.assumed)


@pytest.fixture
def helper() -> FakeHelper:
    return FakeHelper()


@pytest.fixture
def plans(helper: FakeHelper, monkeypatch: pytest.MonkeyPatch) -> PlanSession:
    monkeypatch.setattr(plan_session, "QUIET_SECONDS", 0.05)
    return PlanSession(helper, 64 * GIB)


def _rank(rank: int, **values: Any) -> Recipe:
    return make_recipe({"lora.rank": rank, **values})


def test_a_look_returns_at_once_and_the_plan_comes_after(plans: PlanSession, helper: FakeHelper) -> None:
    helper.go.clear()
    plans.look(_rank(16))
    assert "Planning…" in plans.html()
    helper.go.set()
    until(lambda: not plans.busy)
    assert "16.00 GiB" in plans.html() and "planning" not in plans.html()


def test_the_last_plan_stays_greyed_and_only_the_latest_answer_counts(plans: PlanSession, helper: FakeHelper) -> None:
    plans.look(_rank(16))
    until(lambda: not plans.busy)
    helper.go.clear()
    plans.look(_rank(20))
    until(lambda: helper.asked == [16, 20])
    plans.look(_rank(24))
    assert "nb-stale" in plans.html() and "16.00 GiB" in plans.html()
    helper.go.set()
    until(lambda: not plans.busy)
    assert helper.asked == [16, 20, 24] and "24.00 GiB" in plans.html() and "nb-stale" not in plans.html()


def test_a_flurry_of_changes_is_one_question(plans: PlanSession, helper: FakeHelper) -> None:
    for rank in range(15, 30):
        plans.look(_rank(rank))
    until(lambda: not plans.busy)
    assert helper.asked == [29]


def test_what_decides_nothing_is_not_planned_again_and_what_was_assumed_is(
    plans: PlanSession, helper: FakeHelper
) -> None:
    plans.look(_rank(16))
    until(lambda: not plans.busy)
    before = plans.turn
    plans.look(_rank(16, **{"name": "another", "train.learning_rate": 1e-4, "lora.alpha": 3}))
    assert not plans.busy and plans.turn > before
    helper.assumed = ["data.max_length: each conversation has 512 tokens"]
    plans.look(_rank(17))
    until(lambda: not plans.busy)
    plans.look(_rank(17))
    until(lambda: not plans.busy)
    assert helper.asked == [16, 17, 17]


def test_a_refusal_stands_in_the_plans_place_until_the_next_plan(plans: PlanSession) -> None:
    plans.look(_rank(13))
    until(lambda: not plans.busy)
    assert "There is no model &#x27;nobody&#x27;." in plans.html()
    plans.look(_rank(16))
    until(lambda: not plans.busy)
    assert "nobody" not in plans.html() and "It fits" in plans.html()
    plans.refuse("lora.rank: 0 is not valid; allowed: 1 to 512.")
    assert "Rank (lora.rank): 0 is not valid" in plans.html()
    plans.look(_rank(16))
    until(lambda: not plans.busy)
    assert "It fits" in plans.html()


def test_settings_refused_while_a_plan_is_made_are_not_overwritten_by_it(
    plans: PlanSession, helper: FakeHelper
) -> None:
    helper.go.clear()
    plans.look(_rank(16))
    until(lambda: helper.asked == [16])
    plans.refuse("lora.rank: 0 is not valid.")
    helper.go.set()
    until(lambda: not plans.busy)
    assert "0 is not valid" in plans.html()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_foresaw_is_said_too_and_the_next_plan_comes(plans: PlanSession) -> None:
    plans.look(_rank(14))
    until(lambda: not plans.busy)
    assert "Unexpected error (KeyError" in plans.html()
    until(lambda: not plans.busy)
    plans.look(_rank(16))
    until(lambda: not plans.busy)
    assert "It fits" in plans.html()


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("lora.rank=16", "lora.rank", 16),
        ("train.optimizer=paged_adamw_8bit", "train.optimizer", "paged_adamw_8bit"),
        ("budget=577MiB", "budget", "0.57GiB"),
        ("budget=614MiB", "budget", "0.6GiB"),
    ],
)
def test_a_way_becomes_a_setting_and_a_budget_is_never_rounded_down(change: str, key: str, value: object) -> None:
    assert plan_events.setting(change) == (key, value)


def test_a_way_is_set_on_the_form_and_kept(train_tab: TrainTab, context: Context) -> None:
    events = plan_events.PlanEvents(train_tab.form, train_tab.layout.form.message, context, train_tab.session.plans)
    updates = events.use(gr.EventData(None, {"change": "lora.rank=8"}))
    assert updates[train_tab.form.fields["lora.rank"]] == 8
    assert read_json(context.form_file)["lora.rank"] == 8
    for change in ("nonsense=1", "budget=none", "lora", "lora=3"):
        assert "nb-error" in events.use(gr.EventData(None, {"change": change}))[train_tab.layout.form.message]


def test_a_browser_gets_the_plan_once_and_again_after_a_look(
    train_tab: TrainTab, context: Context, plans: PlanSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, seen = train_tab.layout.plan, {}
    monkeypatch.setattr(train_tick, "device", lambda: Device("cpu", "CPU", 24 * 2**30, 20 * 2**30))
    assert plan_events.tick(shown, plans, seen) == {shown: plans.html()}
    assert "GiB free now" in train_tab.parts()["scale"]
    assert plan_events.tick(shown, plans, seen) == {}
    plans.refuse("no")
    assert plan_events.tick(shown, plans, seen) == {shown: plans.html()}


def test_the_scale_marks_what_is_free_and_what_is_needed_within_the_slider() -> None:
    gib = 2**30
    drawn = budget_scale.html(0, 24 * gib, 12 * gib, 6 * gib)
    assert "the plan needs 6.00 GiB" in drawn
    assert "12.0 GiB free now" in drawn
    assert drawn.count("--at:50.0%") == drawn.count("--at:25.0%") == 1
    assert "more than there is" in budget_scale.html(0, 24 * gib, 12 * gib, 30 * gib)
    assert "needs" not in budget_scale.html(0, 24 * gib, 12 * gib, None)
    # A byte more or less free is nothing to redraw.
    assert drawn == budget_scale.html(0, 24 * gib, 12 * gib + 1, 6 * gib)
