"""The Arena tab's callbacks: blind until the vote, errors in place, ticks that say only what changed."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from app.arena import html as arena_html
from app.arena import layout as arena_layout
from app.arena import leaderboard_html
from app.arena.events import ArenaEvents
from app.arena.wire import ArenaTab
from app.context import Context
from core.arena.games import Game
from core.arena.leaderboard import board
from core.arena.match import ITS_BASE
from core.arena.votes import Side, Vote
from tests.core.arena.speaking import Speaker
from tests.waiting import until

HOSTILE = "<script>document.title='run'</script>"
BASES = {"first": "base:starter", "second": "base:other"}


@pytest.fixture
def arena(tab: arena_layout.ArenaLayout, context: Context) -> ArenaTab:
    """The tab of a workspace."""
    found = ArenaTab(context)
    found.layout, found.events = tab, ArenaEvents(tab, context, found.matches, found.leaderboard, found.jobs)
    return found


@pytest.fixture
def speaker(arena: ArenaTab) -> Speaker:
    """Models that answer without being loaded."""
    arena.matches.chat = found = Speaker()
    return found


@pytest.fixture(scope="module")
def tab() -> arena_layout.ArenaLayout:
    """The tab's components."""
    with gr.Blocks():
        return arena_layout.build()


@pytest.fixture
def events(arena: ArenaTab, speaker: Speaker) -> ArenaEvents:
    return arena.events


def _given(tab: arena_layout.ArenaLayout, question: str = "", **changes: Any) -> dict[Any, Any]:
    values = {component: component.value for component in tab.form().values()}
    chosen = {tab.form()[name]: value for name, value in {**BASES, **changes}.items()}
    return {**values, **chosen, tab.question: question}


def _vote(left: str, right: str, winner: str = "left", label: str = "") -> Vote:
    return Vote(Side(left, label or left), Side(right, right), winner)  # type: ignore[arg-type]


def test_both_answer_and_the_names_come_after_the_vote(tab: arena_layout.ArenaLayout, events: ArenaEvents) -> None:
    *_, shown = events.ask(_given(tab, "Hello", source="typed"))
    assert "Hello" in shown[tab.asked]
    assert shown[tab.go].interactive
    heads = shown[tab.heads[0]] + shown[tab.heads[1]]
    assert "starter (base model)" not in heads and "other (base model)" not in heads
    assert all(shown[button].interactive for button in tab.votes.values())
    shown = events.vote("left")
    heads = shown[tab.heads[0]] + shown[tab.heads[1]]
    assert "starter (base model)" in heads and "other (base model)" in heads
    assert not any(shown[button].interactive for button in tab.votes.values())
    assert len(events.matches.votes.refresh()) == 1
    assert "already voted" in events.vote("left")[tab.status]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "typed"}, "prompt is empty"),
        ({"source": "prepared"}, "no prepared replies left"),
        ({"second": "base:starter"}, "only one model"),
        ({"second": ITS_BASE}, "no base model of its own"),
        ({"first": "run:gone"}, "There are no runs yet"),
        ({"first": ""}, "is not a chat model"),
    ],
)
def test_what_cannot_be_a_match_is_said_in_place(
    tab: arena_layout.ArenaLayout, events: ArenaEvents, changes: dict[str, str], said: str
) -> None:
    *_, shown = events.ask(_given(tab, **changes))
    assert said in shown[tab.status] and "nb-error" in shown[tab.status]
    assert events.matches.match is None


def test_a_refusal_while_answering_is_said_and_the_question_stays(
    tab: arena_layout.ArenaLayout, events: ArenaEvents
) -> None:
    *_, shown = events.ask(_given(tab, "This is broken", source="typed"))
    assert "The template refuses that." in shown[tab.status]
    assert not any(shown[button].interactive for button in tab.votes.values())


def test_questions_of_the_set_do_not_come_twice_before_all_were_asked(
    tab: arena_layout.ArenaLayout, events: ArenaEvents, speaker: Speaker
) -> None:
    for _ in range(8):
        list(events.ask(_given(tab, source="shipped:talk")))
    assert len({str(messages) for _, messages, _ in speaker.heard}) == 8


def test_answers_are_text_whatever_is_in_them(tab: arena_layout.ArenaLayout, events: ArenaEvents) -> None:
    *_, shown = events.ask(_given(tab, HOSTILE, source="typed"))
    for part in (shown[tab.asked], *(shown[reply] for reply in tab.replies)):
        assert "<script" not in part and "script" in part


def test_a_tick_says_only_what_changed(tab: arena_layout.ArenaLayout, arena: ArenaTab, events: ArenaEvents) -> None:
    seen: dict[str, Any] = {}
    assert tab.board in arena.tick(seen)
    until(lambda: not arena.leaderboard.busy)
    arena.tick(seen)
    assert "No votes yet" in arena.leaderboard.result
    assert arena.tick(seen) == {}
    arena.matches.votes.add([_vote("a", "b")])
    until(lambda: "data-model" in arena.tick(seen).get(tab.board, ""))
    assert arena.tick(seen) == {}
    assert "data-model" in arena.tick({})[tab.board]


def test_whose_votes_count_is_chosen(arena: ArenaTab, events: ArenaEvents) -> None:
    arena.matches.votes.add([_vote("a", "b"), Vote(Side("c", "c"), Side("d", "d"), "tie", judge="judge:x")])
    events.count(["judge"])
    until(lambda: 'data-model="c"' in arena.leaderboard.look())
    assert 'data-model="a"' not in arena.leaderboard.result
    events.count([])
    until(lambda: "No votes to count" in arena.leaderboard.look())


def test_answers_are_prepared_and_what_was_begun_is_offered_again(
    tab: arena_layout.ArenaLayout, arena: ArenaTab, context: Context, events: ArenaEvents, speaker: Speaker
) -> None:
    given = _given(tab, bulk_voices=["base:starter", "base:other"], bulk_source="shipped:talk")
    speaker.after_each = lambda: arena.jobs.stop() if len(speaker.heard) == 5 else None
    events.prepare(given)
    until(lambda: not arena.jobs.preparing.busy)
    assert "4 of 16 replies are ready" in arena.jobs.preparing_html()
    assert "interrupted" in ArenaTab(context).jobs.preparing_html()
    speaker.after_each = lambda: None
    events.prepare(given)
    until(lambda: not arena.jobs.preparing.busy)
    assert "16 of 16" in arena.jobs.preparing_html()
    assert ArenaTab(context).jobs.preparing_html() == ""
    assert arena.matches.waiting() == 8


def test_one_voice_cannot_be_prepared_alone(tab: arena_layout.ArenaLayout, events: ArenaEvents) -> None:
    assert "only one model" in events.prepare(_given(tab, bulk_voices=["base:starter"]))[tab.bulk_message]


def test_the_judges_key_is_not_remembered(tab: arena_layout.ArenaLayout, context: Context, events: ArenaEvents) -> None:
    assert tab.judge["key"] not in tab.inputs()
    events.remember(_given(tab, judge_url="https://judge.example/v1", judge_model="m"))
    assert "no prepared replies left" in events.judge("https://judge.example/v1", "m", "sk-secret")[tab.judge_message]
    assert not [
        file for file in context.workspace.path.rglob("*") if file.is_file() and b"sk-secret" in file.read_bytes()
    ]
    shown = events.fill()
    assert (shown[tab.judge["url"]], shown[tab.judge["model"]]) == ("https://judge.example/v1", "m")


def test_a_file_that_is_no_table_is_refused_beside_it(
    tab: arena_layout.ArenaLayout, events: ArenaEvents, tmp_path: Any
) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("name,age\nx,3\n", encoding="utf-8")
    assert "has no column" in events.take_in(str(file))[tab.exchanged]
    assert "no votes to export" in events.export()[tab.exchanged]


def test_the_leaderboard_escapes_names_and_says_its_unit() -> None:
    games = [Game(HOSTILE, "b", "model_a"), Game("b", HOSTILE, "model_a")]
    html = leaderboard_html.leaderboard(board(games, 50), {HOSTILE: HOSTILE, "b": "b"}, 3, 2)
    assert "<script" not in html
    assert "Elo (points)" in html and "3 damaged lines" in html and "Fewer than 10 games" in html
    assert html.count('class="nb-elo-point"') == 2


def test_the_lean_of_judges_is_said() -> None:
    said = arena_html.lean(arena_html.Bias(pairs=10, agree=7, first=12, second=4))
    assert "7 of 10 pairs" in said and "75%" in said
