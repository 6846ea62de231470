"""The arena on a card: two models answer one question blind, over one base that is loaded once."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.arena.match import ITS_BASE, contestants, new_match
from core.arena.prompts import ArenaPrompt
from core.chat import worker
from core.chat.client import ChatClient
from core.generation.sampling import Sampling
from core.workspace import Workspace
from tests.gpu.in_process import settings, train


class InThisProcess:
    """The chat's process for ChatClient, in this one."""

    def __init__(self) -> None:
        self.chat, self.alive = worker.Chat(), True

    def ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Its answers."""
        return self.chat.handle(request)

    def tell(self, request: dict[str, Any]) -> None:
        """What has no answer."""
        self.chat.interrupt(request)


@pytest.fixture
def client(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatClient]:
    """The chat's client, over a chat in this process."""
    monkeypatch.setattr(worker, "trust_only", lambda workspace: None)  # it would count for all tests after
    found = ChatClient(workspace)
    found._child = InThisProcess()  # type: ignore[assignment]
    yield found
    found._child.chat._forget()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bases that are loaded."""
    import core.model.load as load

    names: list[str] = []
    original: Callable[..., Any] = load.load_base
    monkeypatch.setattr(load, "load_base", lambda found, *more: names.append(found.label) or original(found, *more))
    return names


@pytest.mark.full
def test_a_run_and_its_base_answer_side_by_side(
    workspace: Workspace, tiny: Path, rows_file: Path, client: ChatClient, loaded: list[str]
) -> None:
    run = train(workspace, settings(tiny, rows_file, **{"train.max_steps": 8, "train.learning_rate": 0.05}))
    assert run.status().state == "finished", run.status().message
    loaded.clear()
    chosen = contestants(workspace, [f"run:{run.id}", ITS_BASE])
    prompt = ArenaPrompt.of("hello there")
    match = new_match(prompt, *chosen, Sampling(max_new_tokens=12, greedy=True), random.Random(0))
    match.play(client)
    assert match.ready and not match.same, "the adapter says something else than its base"
    assert loaded == ["tiny"], "the base is loaded once for both"
    again = new_match(prompt, *reversed(chosen), Sampling(max_new_tokens=12, greedy=True), random.Random(0))
    again.play(client)
    first, second = ({side.side.voice: side.side.text for side in (each.left, each.right)} for each in (match, again))
    assert first == second and len(first) == 2
    assert match.judged("left").winner == "left"
    assert torch.cuda.max_memory_allocated() > 0
