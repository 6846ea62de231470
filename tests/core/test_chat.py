"""The chat says what plain transformers would say, stops when asked, and keeps its answers apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.chat.client import ChatClient
from core.chat.generate import Sampling, answers, prompt_ids, stream
from core.errors import ChildError, NibbleError
from core.workspace import Workspace

ASK = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def talker(adapted: Any) -> Any:
    """The tiny model with an adapter that says something of its own."""
    torch.manual_seed(3)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.2)
    return adapted.eval()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Any:
    """A chat process with the tiny base loaded."""
    client = ChatClient(Workspace.open(tmp_path_factory.mktemp("chat")))
    client.load(str(tiny))
    yield client
    client.close()


def _plain(model: Any, tokenizer: Any, count: int) -> str:
    ids = torch.tensor([prompt_ids(tokenizer, ASK, 512)])
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_a_greedy_reply_is_that_of_plain_generate_with_and_without_the_adapter(talker, tokenizer) -> None:
    greedy = Sampling(max_new_tokens=12, greedy=True)
    with_adapter = [*stream(talker, tokenizer, ASK, greedy)][-1]
    with talker.disable_adapter():
        base = [*stream(talker, tokenizer, ASK, greedy)][-1]
        assert base.text == _plain(talker, tokenizer, 12)
    again = [*stream(talker, tokenizer, ASK, greedy)][-1]
    assert with_adapter.text == again.text == _plain(talker, tokenizer, 12)
    assert with_adapter.text != base.text
    assert with_adapter.done and with_adapter.tokens > 0 and with_adapter.tokens_per_second > 0


def test_prompts_answered_together_are_answered_as_alone(talker, tokenizer) -> None:
    prompts = ["hello", "a red ball, a blue kite and the lazy dog"]
    together = answers(talker, tokenizer, prompts, 8)
    assert together == [answers(talker, tokenizer, [prompt], 8)[0] for prompt in prompts]


def test_a_stop_is_obeyed_within_a_token(talker, tokenizer) -> None:
    pieces = [*stream(talker, tokenizer, ASK, Sampling(max_new_tokens=200, greedy=True), lambda: True)]
    assert pieces[-1].tokens <= 1


def test_the_same_seed_gives_the_same_reply(talker, tokenizer) -> None:
    def say(seed: int) -> str:
        return [*stream(talker, tokenizer, ASK, Sampling(max_new_tokens=12, temperature=1.5, seed=seed))][-1].text

    assert say(1) == say(1) != say(2)


def test_a_prompt_longer_than_the_context_is_refused_in_a_sentence(talker, tokenizer) -> None:
    with pytest.raises(NibbleError, match="the model takes 512"):
        list(stream(talker, tokenizer, [{"role": "user", "content": "hello " * 600}], Sampling()))


def test_the_process_streams_and_can_be_asked_again_after_a_reader_left(chat) -> None:
    first = chat.stream(ASK, use_adapter=False, max_new_tokens=40, greedy=True)
    next(first)
    first.close()  # the browser went away in mid-reply
    pieces = [*chat.stream(ASK, use_adapter=False, max_new_tokens=6, greedy=True)]
    assert pieces[-1].done
    assert pieces[-1].tokens <= 6


def test_the_process_refuses_an_adapter_that_is_not_there(chat) -> None:
    with pytest.raises(NibbleError, match="no adapter over this base"):
        list(chat.stream(ASK, use_adapter=True))


def test_a_process_that_dies_is_said_and_comes_back(chat, tiny) -> None:
    import psutil

    psutil.Process(chat._child.pid).kill()
    with pytest.raises((ChildError, NibbleError)):
        list(chat.stream(ASK, use_adapter=False))
    chat.load(str(tiny))
    assert [*chat.stream(ASK, use_adapter=False, max_new_tokens=2)][-1].done
