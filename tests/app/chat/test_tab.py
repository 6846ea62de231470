"""The Chat tab's presses, and one question to several: parsed, refused in a sentence, kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.chat import layout as chat_layout
from app.chat.compare import Comparison
from app.chat.conversation import ChatConversation, Turn
from app.chat.events import conversation_file, key_of
from app.context import Context
from app.ui.sampling import sampling_of
from core.errors import NibbleError
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel
from core.workspace import Workspace


@pytest.fixture
def tab() -> chat_layout.ChatLayout:
    """The tab's components."""
    with gr.Blocks():
        return chat_layout.build()


def _given(tab: chat_layout.ChatLayout, **changes: Any) -> dict[Any, Any]:
    return {component: changes.get(key, component.value) for key, component in tab.settings.items()}


def test_settings_are_the_papers_unless_they_are_changed(tab: chat_layout.ChatLayout) -> None:
    assert sampling_of(tab.values(_given(tab))) == Sampling()
    changed = _given(tab, seed="7", stop="### Human:\n\nEnd", top_k=5, repetition_penalty=1.2, greedy=True)
    assert sampling_of(tab.values(changed)) == Sampling(
        greedy=True, top_k=5, repetition_penalty=1.2, seed=7, stop=("### Human:", "End")
    )


@pytest.mark.parametrize(("changes", "said"), [({"seed": "-1"}, "Seed"), ({"temperature": 9}, "temperature: 9")])
def test_a_setting_that_cannot_be_is_said(tab: chat_layout.ChatLayout, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NibbleError, match=said):
        sampling_of(tab.values(_given(tab, **changes)))


def test_a_folder_that_is_typed_is_an_adapter() -> None:
    assert key_of(" /home/me/adapter ") == "adapter:/home/me/adapter"
    assert key_of("run:abc") == "run:abc"
    assert key_of(None) == ""


def test_the_conversation_is_taken_away_as_messages(context: Context) -> None:
    conversation = ChatConversation.open(context.workspace, context.chat)
    conversation.turns = [Turn("user", "Hi"), Turn("assistant", "Hello – to you")]
    file = conversation_file(conversation, " Be brief ")
    assert file.suffix == ".jsonl"
    assert json.loads(file.read_text("utf-8"))["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello – to you"},
    ]


class FakeChat:
    """Says who is asked, and with which seed."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stream(self, voice: ChatModel, messages: list[Any], sampling: Sampling, **more: Any) -> Iterator[PartialReply]:
        if voice.model == "broken":
            raise NibbleError("There is no model 'broken'.")
        self.asked.append(voice.model)
        yield PartialReply(f"{voice.model} with seed {sampling.seed}", 3, 9.0, 0.1, True)

    def stop(self, owner: str) -> None:
        """Nothing takes long here."""


def _compare(tmp_path: Path, keys: list[str], question: str = "Who?") -> tuple[Comparison, FakeChat]:
    fake = FakeChat()
    comparison = Comparison.open(Workspace.open(tmp_path), fake)  # type: ignore[arg-type]
    comparison.ask(question, keys, Sampling(), "")
    while comparison.busy:
        time.sleep(0.01)
    return comparison, fake


def test_all_are_asked_with_one_seed_and_it_is_kept(tmp_path: Path) -> None:
    comparison, fake = _compare(tmp_path, ["base:b", "base:a", "base:broken"])
    assert fake.asked == ["a", "b"]
    assert [column.text for column in comparison.columns] == [
        f"b with seed {comparison.seed}",
        f"a with seed {comparison.seed}",
        "",
    ]
    assert comparison.columns[2].error == "There is no model 'broken'."
    assert ("model", ["b", "a", "broken"]) in comparison.differs
    again = Comparison.open(Workspace.open(tmp_path), fake)  # type: ignore[arg-type]
    assert (again.prompt, again.columns, again.differs) == ("Who?", comparison.columns, comparison.differs)


@pytest.mark.parametrize(
    ("keys", "question", "said"),
    [
        (["base:a"], "Who?", "Choose 2 to 4"),
        (["base:a", "base:a"], "Who?", "different"),
        (["base:a", "base:b"], "  ", "prompt is empty"),
        (["base:a", "run:gone"], "Who?", "no runs yet"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, keys: list[str], question: str, said: str) -> None:
    comparison, fake = _compare(tmp_path, keys, question)
    assert said in comparison.error
    assert fake.asked == []
