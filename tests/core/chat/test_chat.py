"""The chat says what plain transformers and PEFT would say, stops when asked, and keeps its answers apart."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.basemodel.find import find_model
from core.chat import worker
from core.chat.adapter_fit import refuse_adapter
from core.chat.adapter_pool import AdapterLost, Adapters
from core.chat.client import ChatClient
from core.errors import AskError, ChildError, ModelError, NibbleError
from core.generation.generate import answers, prompt_ids, stream
from core.generation.sampling import Sampling
from core.recipe import LoraSettings
from core.runs.chat_models import ChatModel, base_chat_model, without_adapter
from core.workspace import Workspace

ASK = [{"role": "user", "content": "hello there"}]
GREEDY = Sampling(max_new_tokens=12, greedy=True)
# What adapters can be: of other targets, ranks, kinds, and with a module of their own.
KINDS = {
    "plain": LoraSettings(rank=4, alpha=8),
    "attention": LoraSettings(rank=2, alpha=16, targets="attention"),
    "dora": LoraSettings(rank=4, alpha=8, dora=True),
    "whole": LoraSettings(rank=2, alpha=8, extra_modules=["embeddings"]),
}


def _base(tiny: Path) -> Any:
    from core.model.load import load_base
    from core.recipe import QuantizationSettings
    from core.system.hardware import Device

    return load_base(find_model(str(tiny)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33)).eval()


def _say_something(model: Any, seed: int) -> None:
    """Weights as training might leave them: each adapter says something of its own."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Path, tokenizer: Any) -> dict[str, Path]:
    """Four adapters over the tiny base, in PEFT's format, by name."""
    from core.model.load import attach_lora

    folder = tmp_path_factory.mktemp("adapters")
    for seed, (name, settings) in enumerate(KINDS.items()):
        adapted = attach_lora(_base(tiny), settings, torch.float32)
        _say_something(adapted, seed)
        adapted.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in KINDS}


@pytest.fixture(scope="module")
def over(tiny: Path) -> Adapters:
    """The tiny base in NF4, for adapters to be swapped over it."""
    return Adapters(_base(tiny), find_model(str(tiny)), most_held=3)


@pytest.fixture
def talker(adapted: Any) -> Any:
    """The tiny model with an adapter that says something of its own."""
    _say_something(adapted, 3)
    return adapted.eval()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A chat process."""
    client = ChatClient(Workspace.open(tmp_path_factory.mktemp("chat")))
    yield client
    client.close()


@pytest.fixture(scope="module")
def voice(tiny: Path, made: dict[str, Path]) -> ChatModel:
    """The plain adapter over the tiny base."""
    return replace(base_chat_model(str(tiny)), label="plain", adapter=made["plain"], tokenizer=made["plain"])


def _plain_ids(model: Any, tokenizer: Any, count: int) -> list[int]:
    """What transformers' own `generate` says, greedily."""
    ids = torch.tensor([prompt_ids(tokenizer, ASK, 512)])
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return output[0, ids.shape[1] :].tolist()


def _say(model: Any, tokenizer: Any, sampling: Sampling = GREEDY, **more: Any) -> Any:
    return [*stream(model, tokenizer, prompt_ids(tokenizer, ASK, 512), sampling, **more)][-1]


def test_greedy_is_plain_transformers_and_peft_token_for_token_and_swapping_changes_nothing(
    over: Adapters, made: dict[str, Path], tiny: Path, tokenizer: Any
) -> None:
    from peft import PeftModel

    expected = {None: _plain_ids(_base(tiny), tokenizer, 12)}
    for name, folder in made.items():
        expected[name] = _plain_ids(PeftModel.from_pretrained(_base(tiny), folder), tokenizer, 12)
    assert len({tuple(ids) for ids in expected.values()}) == len(expected)
    # Four adapters where three are held: some are let go and come back.
    for name in (None, "plain", None, "dora", "whole", "plain", "attention", None, "dora", "whole", None):
        said = _say(over.use(made[name] if name else None), tokenizer)
        assert list(said.ids) == expected[name], name
    assert said.done and said.tokens == 12 and said.tokens_per_second > 0 and said.ends == "length"


def test_the_base_takes_its_memory_once_and_each_adapter_its_own(over: Adapters, made: dict[str, Path]) -> None:
    from bench.chat import held_bytes

    over.use(made["plain"])
    over.forget_others()
    before = held_bytes(over.base)
    over.use(made["attention"])
    file = (made["attention"] / "adapter_model.safetensors").stat().st_size
    assert 0 < held_bytes(over.base) - before <= file


def test_an_adapter_that_was_written_anew_is_read_anew(
    over: Adapters, made: dict[str, Path], tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(made["plain"], folder)
    first = _say(over.use(folder), tokenizer).ids
    time.sleep(0.01)
    shutil.rmtree(folder)
    shutil.copytree(made["dora"], folder, copy_function=shutil.copyfile)
    assert _say(over.use(folder), tokenizer).ids != first
    shutil.rmtree(folder)
    with pytest.raises(NibbleError, match="no longer exists"):
        over.use(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "of the kind IA3"),
        ({"layer_replication": [[0, 2]]}, "changes its base model"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes its base model"),
        (
            {"base_model_name_or_path": "org/another-model"},
            "trained on org/another-model, not on tiny",
        ),
    ],
)
def test_an_adapter_that_cannot_be_swapped_is_refused_in_a_sentence(
    over: Adapters, made: dict[str, Path], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(made["plain"], folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(NibbleError, match=said):
        refuse_adapter(folder, over._bare, over.found)


def test_an_adapter_of_another_size_is_refused_though_it_names_this_base(
    over: Adapters, made: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "odd"
    shutil.copytree(made["plain"], folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: each.repeat(1, 2) for name, each in weights.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(NibbleError, match="trained on tiny, not on tiny"):
        over.use(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(NibbleError, match="cannot be read"):
        over.use(folder)


def test_prompts_answered_together_are_answered_as_alone(talker, tokenizer) -> None:
    prompts = ["hello", "a red ball, a blue kite and the lazy dog"]
    together = answers(talker, tokenizer, prompts, 8)
    assert together == [answers(talker, tokenizer, [prompt], 8)[0] for prompt in prompts]


def test_a_model_that_is_of_no_use_any_more_ends_the_process_and_gives_the_device_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[bool] = []
    chat = worker.Chat()
    chat._hold = SimpleNamespace(release=lambda: given_back.append(True))
    monkeypatch.setattr(worker, "trust_only", lambda workspace: None)
    monkeypatch.setattr(
        worker.ChatModel, "from_request", lambda values: SimpleNamespace(adapter=tmp_path, label="Pirate")
    )
    monkeypatch.setattr(chat, "_have_base", lambda voice, request: iter(()))
    errors: list[Exception] = [ModelError("The adapter does not fit.")]

    def use(adapter: Path) -> None:
        raise errors[-1]

    chat._adapters = SimpleNamespace(use=use, forget_others=lambda: None)
    request = {"op": "load", "number": 1, "workspace": str(tmp_path), "chat_model": {}}
    with pytest.raises(ModelError):
        list(chat.handle(request))
    assert not chat.is_over()
    for error in (AdapterLost("half of it is in the base"), MemoryError("not enough")):
        errors.append(error)
        given_back.clear()
        chat._hold = SimpleNamespace(release=lambda: given_back.append(True))
        with pytest.raises(NibbleError):
            list(chat.handle(request))
        assert chat.is_over()
        assert given_back == [True]


def test_it_gives_way_between_two_answers_but_not_before_a_refusal_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    clock, asked = [100.0], []
    chat = worker.Chat()
    chat._hold = SimpleNamespace(wanted=lambda: asked.append(clock[0]) or "“Pirate”", release=lambda: None)
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    monkeypatch.setattr(worker, "os", SimpleNamespace(_exit=end))
    clock[0] = 100.9  # refused then, and looked at a tenth of a second later
    with pytest.raises(KeyError):
        list(chat.handle({"op": "load", "number": 1, "workspace": str(tmp_path), "chat_model": {}}))
    clock[0] = 100.0
    with pytest.raises(Ended):
        chat.give_way()
    assert asked == [102.0]


def test_a_base_that_is_refused_for_want_of_room_costs_the_process_nothing(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another, smaller one can be tried at once: nothing has been loaded."""
    from core.chat import memory_check

    def refuse(*_: Any) -> None:
        raise ModelError("There is no room.")

    chat = worker.Chat()
    monkeypatch.setattr(worker, "trust_only", lambda workspace: None)
    monkeypatch.setattr(memory_check, "refuse_without_room", refuse)
    voice = ChatModel("base:tiny", "tiny", str(tiny), None, {}, None).as_request()
    request = {"op": "load", "number": 1, "workspace": str(tmp_path), "chat_model": voice}
    with pytest.raises(ModelError, match="no room"):
        list(chat.handle(request))
    assert not chat.is_over()
    assert chat._hold is None


def test_a_stop_is_obeyed_within_a_token(talker, tokenizer) -> None:
    said = _say(talker, tokenizer, Sampling(max_new_tokens=200, greedy=True), asked_to_stop=lambda: True)
    assert said.tokens == 1
    assert said.ends == "asked"


def test_who_leaves_ends_the_reply(talker, tokenizer) -> None:
    reply = stream(talker, tokenizer, prompt_ids(tokenizer, ASK, 512), Sampling(max_new_tokens=400, greedy=True))
    next(reply)
    began = time.monotonic()
    reply.close()
    assert time.monotonic() - began < 0.5


def test_the_same_seed_gives_the_same_reply(talker, tokenizer) -> None:
    def say(seed: int) -> str:
        return _say(talker, tokenizer, Sampling(max_new_tokens=12, temperature=1.5, seed=seed)).text

    assert say(1) == say(1) != say(2)


def test_top_k_of_one_is_greedy_and_a_penalty_is_not(talker, tokenizer) -> None:
    greedy = _say(talker, tokenizer)
    assert _say(talker, tokenizer, Sampling(max_new_tokens=12, top_k=1, seed=1)).ids == greedy.ids
    penalised = _say(talker, tokenizer, replace(GREEDY, repetition_penalty=2.0))
    assert len(set(penalised.ids)) > len(set(greedy.ids))


def test_numbers_as_clients_send_them_draw_as_transformers_own_do(talker, tokenizer) -> None:
    """A whole temperature, a nucleus of nothing, `min_p`: the same tokens as plain `generate`, drawn with one seed."""
    greedy = _say(talker, tokenizer)
    for likeliest in (Sampling(12, top_p=0, seed=1), Sampling(12, temperature=1e-30), Sampling(12, min_p=1, seed=1)):
        assert _say(talker, tokenizer, likeliest).ids == greedy.ids
    ids = torch.tensor([prompt_ids(tokenizer, ASK, 512)])
    torch.manual_seed(5)
    drawn = {"do_sample": True, "temperature": 2.0, "top_p": 1.0, "top_k": 0, "min_p": 0.1, "max_new_tokens": 12}
    plain = talker.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **drawn)
    ours = _say(talker, tokenizer, Sampling(12, temperature=2, top_p=1, min_p=0.1, seed=5))
    assert list(ours.ids) == plain[0, ids.shape[1] :].tolist()


def test_penalties_for_presence_and_frequency_are_openais(talker, tokenizer) -> None:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, c[j] how often the reply has the token (API reference)."""
    sampling = Sampling(12, greedy=True, presence_penalty=1.5, frequency_penalty=0.5)
    ids = prompt_ids(tokenizer, ASK, 512)
    reply: list[int] = []
    with torch.no_grad():
        while len(reply) < 12:
            logits = talker(input_ids=torch.tensor([ids + reply])).logits[0, -1].float()
            for token in set(reply):
                logits[token] -= reply.count(token) * 0.5 + 1.5
            reply.append(int(logits.argmax()))
    assert list(_say(talker, tokenizer, sampling).ids) == reply != list(_say(talker, tokenizer).ids)


def test_a_reply_ends_before_a_stop_text(talker, tokenizer) -> None:
    whole = _say(talker, tokenizer, Sampling(max_new_tokens=60, greedy=True))
    stop = whole.text[len(whole.text) // 2 :][:3]
    shown = [*stream(talker, tokenizer, prompt_ids(tokenizer, ASK, 512), Sampling(60, greedy=True, stop=(stop,)))]
    assert shown[-1].ends == "stop"
    assert shown[-1].text == whole.text[: whole.text.index(stop)].strip()
    assert shown[-1].tokens < whole.tokens
    assert not any(stop in piece.text for piece in shown)


def test_a_prompt_longer_than_the_context_is_refused_in_a_sentence(tokenizer) -> None:
    with pytest.raises(
        AskError, match=r"maximum context length is 512 tokens, and the conversation already has \d\d\d"
    ) as refused:
        prompt_ids(tokenizer, [{"role": "user", "content": "hello " * 600}], 512)
    assert refused.value.code == "context_length_exceeded"


def test_a_reply_ends_where_the_context_is_full(talker, tokenizer) -> None:
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "hello there " * 80}], 512)
    memory_check = 512 - len(ids)
    last = [*stream(talker, tokenizer, ids, Sampling(max_new_tokens=4000, greedy=True))][-1]
    assert (last.tokens, last.ends) == (memory_check, "context")
    assert (last.prompt_tokens, last.context_tokens) == (len(ids), 512)


def test_a_template_that_refuses_the_history_is_said_in_a_sentence(tokenizer) -> None:
    from copy import deepcopy

    strict = deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(NibbleError, match="refuses the conversation: roles must alternate"):
        prompt_ids(strict, ASK, 512)


@pytest.mark.full
def test_a_process_that_dies_is_said_and_comes_back(chat, voice) -> None:
    import psutil

    def kill() -> None:
        while not chat._child.alive:
            time.sleep(0.01)
        psutil.Process(chat._child._process.pid).kill()

    threading.Thread(target=kill).start()
    with pytest.raises(ChildError, match="ended unexpectedly"):
        chat.load(voice)
    assert chat.loaded is None
    assert [*chat.stream(voice, ASK, Sampling(max_new_tokens=2))][-1].done


def test_the_process_swaps_voices_and_says_how_full_the_context_is(chat, voice) -> None:
    first = [*chat.stream(voice, ASK, GREEDY)][-1]
    base = [*chat.stream(without_adapter(voice), ASK, GREEDY)][-1]
    again = [*chat.stream(voice, ASK, GREEDY)][-1]
    assert first.ids == again.ids != base.ids
    assert (first.context_tokens, first.tokens) == (512, 12)
    assert chat.loaded == "plain"


def test_the_process_can_be_asked_again_after_a_reader_left(chat, voice) -> None:
    first = chat.stream(voice, ASK, Sampling(max_new_tokens=400, greedy=True))
    next(first)
    first.close()  # the browser went away in mid-reply
    pieces = [*chat.stream(voice, ASK, Sampling(max_new_tokens=6, greedy=True))]
    assert pieces[-1].done
    assert pieces[-1].tokens <= 6


def test_a_stop_in_mid_reply_and_one_that_comes_before_it(chat, voice) -> None:
    pieces = []
    for piece in chat.stream(voice, ASK, Sampling(max_new_tokens=440, greedy=True)):
        chat.stop()
        pieces.append(piece)
    assert pieces[-1].ends == "asked"
    assert pieces[-1].tokens < 440
    waiting = [chat.stream(voice, ASK, Sampling(max_new_tokens=440, greedy=True)) for _ in range(3)]
    told: list[Any] = []
    threads = [threading.Thread(target=lambda each=each: told.append([*each])) for each in waiting]
    for thread in threads:
        thread.start()
    while len(chat._open) < 3:
        time.sleep(0.001)
    chat.stop()
    assert chat.busy
    for thread in threads:
        thread.join(20)
    assert sum(len(pieces) > 0 and pieces[-1].ends != "asked" for pieces in told) == 0


def test_what_cannot_be_said_is_refused_and_the_process_lives_on(chat, voice, tmp_path) -> None:
    with pytest.raises(NibbleError, match="message is empty"):
        list(chat.stream(voice, [{"role": "user", "content": " "}]))
    with pytest.raises(NibbleError, match="There is no model"):
        list(chat.stream(base_chat_model("no such"), ASK))
    with pytest.raises(NibbleError, match="The base model of plain is missing. There is no model 'no such'"):
        list(chat.stream(replace(voice, model="no such"), ASK))
    with pytest.raises(NibbleError, match="no longer exists"):
        list(chat.stream(replace(voice, adapter=tmp_path), ASK))
    assert [*chat.stream(voice, ASK, GREEDY)][-1].done


def test_the_endpoint_streams_what_the_chat_says_to_the_official_client(chat, voice, tmp_path) -> None:
    import openai

    from core.serve.endpoint import name_of
    from core.serve.server import EndpointServer

    server = EndpointServer(chat, Workspace.open(tmp_path), voice, "a-key-for-this-test", 0)
    server.start()
    try:
        client = openai.OpenAI(base_url=server.url, api_key=server.key, max_retries=0)
        asked: Any = {"model": name_of(voice), "messages": ASK, "temperature": 0, "max_tokens": 12}
        streamed = client.chat.completions.create(**asked, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        whole = client.chat.completions.create(**asked)
        refused = {}
        for setting, more in {
            "messages": {"messages": [{"role": "user", "content": "hello " * 600}]},
            "reasoning_effort": {"reasoning_effort": "low"},
            "chat_template_kwargs.enable_thinking": {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
        }.items():
            with pytest.raises(openai.BadRequestError) as each:
                client.chat.completions.create(**{**asked, **more})
            refused[setting] = each.value
    finally:
        server.stop()
    assert [each.param for each in refused.values()] == list(refused)
    assert refused["messages"].code == "context_length_exceeded"
    assert "maximum context length is 512 tokens" in str(refused["messages"])
    expected = [*chat.stream(voice, ASK, GREEDY)][-1]
    assert said.strip() == whole.choices[0].message.content == expected.text
    assert whole.usage.completion_tokens == 12


def test_without_room_it_says_how_much_is_free_and_what_to_do(tiny, tmp_path) -> None:
    from core.chat.memory_check import refuse_without_room
    from core.recipe import QuantizationSettings
    from core.system.hardware import Device

    full = Device("cuda", "A card", 2**33, 2**28)
    with pytest.raises(NibbleError, match="tiny needs about 477 MiB, and 256 MiB is free.*choose a smaller model"):
        refuse_without_room(find_model(str(tiny)), QuantizationSettings(), 2, full, Workspace.open(tmp_path))


def test_beside_a_training_it_says_whose_and_counts_what_that_will_yet_take(tiny, tmp_path) -> None:
    import os

    from core.chat.memory_check import refuse_without_room
    from core.recipe import QuantizationSettings, Recipe
    from core.runs.create import create_run
    from core.system.hardware import Device
    from core.system.process import process_started
    from core.workspace import write_json

    workspace = Workspace.open(tmp_path)
    run = create_run(workspace, Recipe(name="Pirate"), {"file": "x", "sha256": "", "name": "x"})
    run.write_status(state="training", pid=os.getpid(), pid_started=process_started(os.getpid()))
    card = Device("cuda", "A card", 8 * 2**30, 4 * 2**30)
    refuse_without_room(find_model(str(tiny)), QuantizationSettings(), 2, card, workspace)
    write_json(run.dir / "plan.json", {"peak_bytes": {"process": 15 * 2**29}})  # of which 4 GiB are there by now
    sentence = "512 MiB is free on this device next to the run “Pirate”.*stop it, or choose"
    with pytest.raises(NibbleError, match=sentence):
        refuse_without_room(find_model(str(tiny)), QuantizationSettings(bits=16), 2**12, card, workspace)
