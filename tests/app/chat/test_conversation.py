"""The conversation goes on without a page, survives a restart, and says what went wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.chat.conversation import IDLE_SECONDS, ChatConversation, ReplySettings
from core.errors import NibbleError
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel
from core.workspace import Workspace
from tests.waiting import until

SETTINGS = ReplySettings("base", Sampling(max_new_tokens=8, greedy=True), system="")


class FakeChat:
    """A chat process that says three words, waiting for `go` before the last."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.busy, self.used = False, 0.0
        self.stopped = False
        self.heard: list[list[dict[str, str]]] = []
        self.loaded: str | None = None
        self.loads = 0
        self.slow_load: threading.Event | None = None

    def load(self, voice: ChatModel, progress: object = None, owner: str = "") -> None:
        if voice.model == "broken":
            raise NibbleError("There is no model 'broken'.")
        if self.loaded == voice.model:
            return
        if self.slow_load is not None:
            self.slow_load.wait(10)
        self.loaded, self.loads = voice.model, self.loads + 1

    def stream(
        self, voice: ChatModel, messages: list[dict[str, str]], *how: Any, **more: Any
    ) -> Iterator[PartialReply]:
        self.load(voice)
        self.heard.append(messages)
        yield PartialReply("one", 1, 10.0, 0.1, False)
        yield PartialReply("one two", 2, 10.0, 0.1, False)
        self.go.wait(10)
        whole = "one two" if self.stopped else "one two three"
        yield PartialReply(whole, 3, 10.0, 0.1, True, 20, 512, "asked" if self.stopped else "end")

    def stop(self, owner: str) -> None:
        self.stopped = True
        self.go.set()

    def close(self) -> None:
        self.loaded = None


def _conversation(tmp_path: Path) -> tuple[ChatConversation, FakeChat]:
    chat = FakeChat()
    return ChatConversation.open(Workspace.open(tmp_path), chat), chat  # type: ignore[arg-type]


def test_a_reply_grows_and_says_how_fast_it_came(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    conversation.say("hello", "base:starter", SETTINGS)
    until(lambda: len(conversation.turns) == 2 and conversation.turns[1].content == "one two")
    assert conversation.busy
    chat.go.set()
    until(lambda: not conversation.busy)
    assert conversation.turns[1].content == "one two three"
    assert conversation.turns[1].note == "base · 3 tokens · 10.0 tokens/s · first after 0.1 s"
    assert conversation.context == (23, 512)
    assert chat.heard == [[{"role": "user", "content": "hello"}]]


def test_a_second_message_waits_for_the_first(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    conversation.say("hello", "base:starter", SETTINGS)
    conversation.say("and?", "base:starter", SETTINGS)
    assert [turn.content for turn in conversation.turns if turn.role == "user"] == ["hello"]
    assert "still replying" in conversation.error
    chat.go.set()
    until(lambda: not conversation.busy)


def test_stop_keeps_what_was_said(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    conversation.say("hello", "base:starter", SETTINGS)
    until(lambda: len(conversation.turns) == 2)
    conversation.stop()
    until(lambda: not conversation.busy)
    assert conversation.turns[1].content == "one two"


def test_regenerate_asks_the_same_again(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    chat.go.set()
    conversation.say("hello", "base:starter", SETTINGS)
    until(lambda: not conversation.busy)
    conversation.again("base:starter", SETTINGS)
    until(lambda: not conversation.busy)
    assert chat.heard[0] == chat.heard[1]
    assert len(conversation.turns) == 2


def test_the_conversation_survives_a_restart(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    chat.go.set()
    conversation.say("hello", "base:starter", SETTINGS)
    until(lambda: not conversation.busy)
    again, _ = _conversation(tmp_path)
    assert again.turns == conversation.turns
    again.clear()
    assert _conversation(tmp_path)[0].turns == []


def test_what_went_wrong_is_said_and_the_message_is_kept(tmp_path: Path) -> None:
    conversation, _ = _conversation(tmp_path)
    conversation.say("hello", "base:broken", SETTINGS)
    until(lambda: not conversation.busy)
    assert conversation.error == "There is no model 'broken'."
    assert [turn.content for turn in conversation.turns] == ["hello"]


def test_with_nothing_to_talk_to_it_says_what_to_do(tmp_path: Path) -> None:
    conversation, _ = _conversation(tmp_path)
    conversation.say("hello", "", SETTINGS)
    until(lambda: not conversation.busy)
    assert "Train an adapter first" in conversation.error


def test_a_message_that_comes_while_it_loads_is_answered_after(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    chat.go.set()
    chat.slow_load = threading.Event()
    conversation.load("base:starter")
    conversation.say("hello", "base:starter", SETTINGS)
    time.sleep(0.1)
    assert chat.heard == []
    chat.slow_load.set()
    until(lambda: not conversation.busy)
    assert [turn.content for turn in conversation.turns] == ["hello", "one two three"]
    assert chat.loads == 1


def test_what_nobody_talks_to_is_let_go(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    chat.go.set()
    conversation.say("hello", "base:starter", SETTINGS)
    until(lambda: not conversation.busy)
    conversation.rest()
    assert chat.loaded == "starter"
    conversation.used -= IDLE_SECONDS + 1
    conversation.rest()
    assert chat.loaded is None


def test_ten_messages_at_once_are_one_question_and_one_sentence(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    start = threading.Barrier(10)

    def say(number: int) -> None:
        start.wait()
        conversation.say(f"hello {number}", "base:starter", SETTINGS)

    threads = [threading.Thread(target=say, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([turn for turn in conversation.turns if turn.role == "user"]) == 1
    assert "still replying" in conversation.error
    chat.go.set()
    until(lambda: not conversation.busy)
    assert len(chat.heard) == 1 and conversation.error == ""


def test_an_empty_message_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    conversation.say("  \n", "base:starter", SETTINGS)
    assert conversation.turns == [] and "message is empty" in conversation.error and not conversation.busy


def test_undo_gives_the_message_back_and_edit_asks_it_anew(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    chat.go.set()
    for message in ("hello", "and?"):
        conversation.say(message, "base:starter", SETTINGS)
        until(lambda: not conversation.busy)
    assert conversation.undo() == "and?"
    assert [turn.content for turn in conversation.turns] == ["hello", "one two three"]
    conversation.edit(0, "good day", "base:starter", SETTINGS)
    until(lambda: not conversation.busy)
    assert [turn.content for turn in conversation.turns] == ["good day", "one two three"]
    assert conversation.undo() == "good day"
    assert conversation.undo() == "" and conversation.turns == []


def test_clearing_does_not_wait_for_the_reply_and_does_not_hear_it(tmp_path: Path) -> None:
    conversation, chat = _conversation(tmp_path)
    chat.slow_load = threading.Event()
    conversation.say("hello", "base:starter", SETTINGS)
    began = time.monotonic()
    conversation.clear()
    assert time.monotonic() - began < 0.5
    conversation.say("again", "base:starter", SETTINGS)
    chat.slow_load.set()
    until(lambda: not conversation.busy)
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]
    assert conversation.turns[0].content == "again"
