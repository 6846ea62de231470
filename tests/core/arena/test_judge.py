"""The automatic judge: both orders, its lean reported, its key never written down."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from core.arena.answers import Answer, AnswerBook
from core.arena.batch_answers import Bulk
from core.arena.judge import Judge, Judging, position_bias
from core.arena.match import waiting
from core.arena.prompts import ArenaPrompt
from core.arena.votes import VoteBook
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.workspace import Workspace
from tests.core.arena.speaking import Speaker, voice

KEY = "sk-very-secret"
URL = "https://judge.example/v1"


class Endpoint:
    """An OpenAI-compatible endpoint that answers as `say` decides from the two answers."""

    def __init__(self, say: object = "VERDICT: FIRST", status: list[int] | None = None) -> None:
        self.say, self.status = say, status or []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status = self.status.pop(0) if self.status else 200
        if status != 200:
            return httpx.Response(status, text="no", headers={"retry-after": "7"})
        shown = json.loads(request.content)["messages"][1]["content"]
        said = self.say(shown) if callable(self.say) else self.say
        return httpx.Response(200, json={"choices": [{"message": {"content": said}}]})

    def judge(self, **changes: str) -> Judge:
        """A judge that speaks to it."""
        self.paused: list[float] = []
        return Judge(
            **{"url": URL, "model": "gpt-x", "key": KEY, **changes},
            transport=httpx.MockTransport(self),
            pause=self.paused.append,
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def pairs(workspace: Workspace) -> list[tuple[Answer, Answer]]:
    book = AnswerBook(workspace)
    prompts = [ArenaPrompt.of(f"question {number}") for number in range(4)]
    Bulk(book, Speaker(), [voice("good"), voice("bad")], prompts, Sampling(seed=0)).run()
    return waiting(book.refresh(), [])


def _good_wins(shown: str) -> str:
    first = shown.partition("<first>")[2].partition("</first>")[0]
    return f"Reasons.\n**Verdict:** {'first' if 'good says' in first else 'second'}"


def test_both_orders_are_judged_and_marked(workspace: Workspace, pairs: list[tuple[Answer, Answer]]) -> None:
    endpoint, book = Endpoint(_good_wins), VoteBook(workspace)
    judging = Judging(book, endpoint.judge(), pairs)
    judging.run()
    votes = book.refresh()
    assert judging.done == 4 and len(votes) == len(endpoint.requests) == 8
    assert {vote.judge for vote in votes} == {"judge:gpt-x"}
    assert [vote.winner for vote in votes[:2]] in (["left", "right"], ["right", "left"])
    assert all("good" in (vote.left if vote.winner == "left" else vote.right).voice for vote in votes)
    bias = position_bias(votes)
    assert (bias.pairs, bias.agree, bias.first, bias.second) == (4, 4, 4, 4)
    # What is judged is not judged again.
    assert waiting([answer for pair in pairs for answer in pair], votes, "judge:gpt-x") == []


def test_a_judge_that_always_takes_the_first_is_found_out(workspace: Workspace, pairs: list) -> None:
    book = VoteBook(workspace)
    Judging(book, Endpoint("VERDICT: FIRST").judge(), pairs).run()
    bias = position_bias(book.refresh())
    assert (bias.pairs, bias.agree, bias.first, bias.second) == (4, 0, 8, 0)


def test_the_key_is_sent_and_nowhere_written(workspace: Workspace, pairs: list) -> None:
    endpoint = Endpoint()
    judge = endpoint.judge()
    Judging(VoteBook(workspace), judge, pairs).run()
    request = endpoint.requests[0]
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert str(request.url) == f"{URL}/chat/completions"
    assert KEY not in repr(judge)
    for file in workspace.path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_a_reply_without_a_verdict_is_counted_and_no_vote(workspace: Workspace, pairs: list) -> None:
    book = VoteBook(workspace)
    judging = Judging(book, Endpoint("I like both.").judge(), pairs)
    judging.run()
    assert (judging.unread, book.refresh()) == (4, [])


def test_thoughts_are_not_judged() -> None:
    endpoint = Endpoint()
    endpoint.judge().decide("q", "<think>hm</think>one", "opened by the template</think>two <think>and cut")
    shown = json.loads(endpoint.requests[0].content)["messages"][1]["content"]
    assert "<first>\none\n</first>" in shown and "<second>\ntwo\n</second>" in shown


def test_an_endpoint_that_is_busy_is_waited_for_as_it_asks() -> None:
    endpoint = Endpoint(status=[429, 503])
    assert endpoint.judge().decide("q", "a", "b") == "left"
    assert endpoint.paused == [7.0, 7.0]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "rejected the key"), (404, "does not have this page or model"), (400, "refused")]
)
def test_a_refusal_is_one_sentence_without_the_key(workspace: Workspace, pairs: list, status: int, said: str) -> None:
    judging = Judging(VoteBook(workspace), Endpoint(status=[status] * 99).judge(), pairs)
    with pytest.raises(NibbleError, match=said) as refused:
        judging.run()
    assert KEY not in str(refused.value)
    assert len(judging.failed) == 3


def test_a_page_that_is_no_endpoint_and_a_dead_one_are_said() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>")

    def dead(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    for answer, said in ((page, "did not return a chat completion"), (dead, "cannot be reached: Connection refused")):
        judge = Judge(URL, "m", KEY, httpx.MockTransport(answer), lambda seconds: None)
        with pytest.raises(NibbleError, match=said):
            judge.decide("q", "a", "b")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "file:///etc/passwd"}, "not the address"),
        ({"url": "judge"}, "not the address"),
        ({"url": "http://[x"}, "not the address"),
        ({"url": "http://judge:port/v1"}, "not the address"),
        ({"key": "schl\u00fcssel"}, "invalid characters"),
        ({"url": "http://far.example/v1"}, "unencrypted"),
        ({"model": " "}, "model is missing"),
    ],
)
def test_what_cannot_be_a_judge_is_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(NibbleError, match=said):
        Endpoint().judge(**changes)


def test_a_key_may_go_unencrypted_to_this_house_only() -> None:
    for url in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://192.168.0.7/v1", "http://box.local/v1"):
        assert Endpoint().judge(url=url).key == KEY
    assert Endpoint().judge(url="http://far.example/v1", key="").key == ""
