"""Matches are blind and fair; answers made in advance are made once."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from core.arena.answers import AnswerBook, key_of
from core.arena.batch_answers import Bulk
from core.arena.match import ITS_BASE, Match, MatchStopped, contestants, new_match, prepared_match, waiting
from core.arena.prompts import ArenaPrompt
from core.arena.votes import Vote
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.workspace import Workspace
from tests.core.arena.speaking import Speaker, voice

ONE, TWO = voice("run:1", "Pirate"), voice("base:starter", "Starter")
ASK = ArenaPrompt.of("Hello there", system="Be brief.")


@pytest.fixture
def book(tmp_path: Path) -> AnswerBook:
    return AnswerBook(Workspace.open(tmp_path))


def _match(seed: int = 0) -> Match:
    return new_match(ASK, ONE, TWO, Sampling(), random.Random(seed))


def test_chance_decides_who_stands_on_the_left() -> None:
    left = Counter(_match(seed).left.side.voice for seed in range(400))
    assert 160 < left["run:1"] < 240  # 200 ± 4 standard errors


def test_both_are_asked_the_same_in_the_same_way() -> None:
    speaker, match = Speaker(), _match()
    match.play(speaker)
    (_, first, one), (_, second, other) = speaker.heard
    assert (
        first
        == second
        == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello there"},
        ]
    )
    assert one == other and one.seed is not None
    assert match.ready and not match.same
    assert match.left.side.text == f"{match.left.side.voice} says Hello there"


def test_a_vote_holds_all_there_is_to_know() -> None:
    match = _match()
    match.play(Speaker())
    vote = match.judged("right")
    assert vote == Vote(
        left=match.left.side,
        right=match.right.side,
        winner="right",
        prompt="system: Be brief.\n\nuser: Hello there",
        source="typed",
        settings=match.settings,
        seed=match.settings["seed"],
    )
    assert vote.game.winner == "model_b"


def test_before_both_have_answered_and_after_the_vote_there_is_none() -> None:
    match = _match()
    with pytest.raises(NibbleError, match="Both replies must be complete"):
        match.judged("left")
    match.play(Speaker())
    match.judged("left")
    with pytest.raises(NibbleError, match="already voted"):
        match.judged("left")


def test_what_cannot_be_a_match_is_refused() -> None:
    with pytest.raises(NibbleError, match="prompt is empty"):
        new_match(ArenaPrompt.of("  "), ONE, TWO, Sampling(), random.Random(0))
    with pytest.raises(NibbleError, match="the same"):
        new_match(ASK, ONE, ONE, Sampling(), random.Random(0))


def test_a_stop_ends_it_at_once() -> None:
    speaker, match = Speaker(), _match()
    stopped: list[bool] = []
    speaker.after_each = lambda: stopped.append(True)
    with pytest.raises(MatchStopped):
        match.play(speaker, stopping=lambda: len(stopped) >= 2)
    assert len(speaker.heard) == 1 and not match.ready


def test_a_base_is_asked_as_the_run_over_it_and_one_voice_is_too_few(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    folder = workspace.path / "adapters" / "mine"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    (folder / "adapter_model.safetensors").touch()
    (folder / "tokenizer_config.json").write_text("{}")
    mine, base = contestants(workspace, ["adapter:mine", ITS_BASE])
    assert (mine.adapter, base.adapter, base.key) == (folder, None, "base:some/model")
    assert base.tokenizer == mine.tokenizer == folder
    assert contestants(workspace, ["base:some/model", "adapter:mine"])[0].tokenizer == folder
    for keys in (["adapter:mine"], ["adapter:mine", "adapter:mine"], ["base:some/model", ITS_BASE]):
        with pytest.raises(NibbleError):
            contestants(workspace, keys)


def _questions(count: int) -> list[ArenaPrompt]:
    return [ArenaPrompt.of(f"question {number}") for number in range(count)]


def test_what_is_there_is_not_made_again(book: AnswerBook) -> None:
    speaker, sampling = Speaker(), Sampling(seed=0)
    first = Bulk(book, speaker, [ONE, TWO], _questions(3), sampling)
    first.run()
    assert (first.done, first.total, first.failed) == (6, 6, [])
    assert [key for key, _, _ in speaker.heard] == ["run:1"] * 3 + ["base:starter"] * 3
    again = Bulk(book, speaker, [ONE, TWO], _questions(4), sampling)
    again.run()
    assert again.done == 8 and len(speaker.heard) == 8
    other = Sampling(seed=0, temperature=1.0)
    assert key_of(ONE, _questions(1)[0], other) not in {answer.key for answer in book.refresh()}


def test_it_can_be_stopped_and_gone_on_with(book: AnswerBook) -> None:
    speaker, sampling = Speaker(), Sampling(seed=0)
    bulk = Bulk(book, speaker, [ONE, TWO], _questions(3), sampling)
    speaker.after_each = lambda: bulk.stop() if len(speaker.heard) == 3 else None
    bulk.run()
    assert bulk.done == len(book.refresh()) == 2  # the third was not whole
    Bulk(book, Speaker(), [ONE, TWO], _questions(3), sampling).run()
    assert len(book.refresh()) == 6


def test_a_question_that_is_refused_is_passed_over_and_many_end_it(book: AnswerBook) -> None:
    odd = [ArenaPrompt.of("broken"), *_questions(2)]
    bulk = Bulk(book, Speaker(), [ONE], odd, Sampling(seed=0))
    bulk.run()
    assert bulk.done == 2 and bulk.failed == ["The template refuses that."]
    with pytest.raises(NibbleError, match="refuses"):
        Bulk(book, Speaker(), [ONE], [ArenaPrompt.of(f"broken {n}") for n in range(9)], Sampling(seed=0)).run()


def test_a_damaged_answer_is_made_again(book: AnswerBook) -> None:
    Bulk(book, Speaker(), [ONE], _questions(2), Sampling(seed=0)).run()
    lines = book.path.read_text(encoding="utf-8").splitlines()
    book.path.write_text(f"{lines[0]}\n{lines[1][:30]}", encoding="utf-8")
    Bulk(book, Speaker(), [ONE], _questions(2), Sampling(seed=0)).run()
    assert len(AnswerBook(Workspace.open(book.path.parents[1])).refresh()) == 2


def test_prepared_pairs_wait_for_a_vote_each(book: AnswerBook) -> None:
    three = [ONE, TWO, voice("run:2")]
    Bulk(book, Speaker(), three, _questions(2), Sampling(seed=0)).run()
    votes: list[Vote] = []
    while pairs := waiting(book.refresh(), votes):
        match = prepared_match(*pairs[0], random.Random(len(votes)))
        assert match.ready
        votes.append(match.judged("tie"))
    assert len(votes) == 6  # three pairs of voices, two questions
    assert len(waiting(book.refresh(), votes, "judge:x")) == 6
