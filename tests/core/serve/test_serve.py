"""The endpoint speaks OpenAI's language to the official client, and to nobody without the key."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from core.errors import NibbleError
from core.generation.reply import PartialReply
from core.generation.sampling import LONGEST, Sampling
from core.runs.chat_models import ChatModel, base_chat_model
from core.serve.server import EndpointServer, given_key, new_key
from core.system.addresses import Names
from core.workspace import ROOT, Workspace
from tests.core.serve.client_bodies import BODIES

KEY = "nb-a-key-of-the-tests"
WORDS = ["one", "two", "three", "four", "five"]


@dataclass
class FakeClient:
    """A chat that counts slowly, unless it is told to `go`."""

    go: threading.Event = field(default_factory=threading.Event)
    heard: list[tuple[ChatModel, list[dict[str, Any]], Sampling]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def stream(
        self, voice: ChatModel, messages: list[dict[str, Any]], sampling: Sampling, owner: str, asked: dict[str, Any]
    ) -> Iterator[PartialReply]:
        self.heard.append((voice, messages, sampling))
        self.asked = asked
        if messages[-1]["content"] == "too long":
            raise NibbleError("The model is gone.")
        said = ""
        try:
            for count, word in enumerate(WORDS, 1):
                said = f"{said} {word}".strip()
                yield PartialReply(said, count, 10.0, 0.1, False, 7, 512)
                self.go.wait(0.3)
            if messages[-1]["content"] == "for ever":
                while True:
                    time.sleep(0.02)
                    yield PartialReply(said, 6, 10.0, 0.1, False, 7, 512)
            yield PartialReply(said, 5, 10.0, 0.1, True, 7, 512, "length" if sampling.max_new_tokens == 5 else "end")
        finally:
            self.left.set()


@pytest.fixture
def chat() -> FakeClient:
    """Who answers behind the endpoint."""
    fake = FakeClient()
    fake.go.set()
    return fake


@pytest.fixture
def server(chat: FakeClient, tmp_path: Path) -> Iterator[EndpointServer]:
    """The endpoint on a port of its own."""
    served = EndpointServer(chat, Workspace.open(tmp_path), base_chat_model("starter"), KEY, 0)  # type: ignore[arg-type]
    served.start()
    yield served
    served.stop()


@pytest.fixture
def client(server: EndpointServer) -> openai.OpenAI:
    """The official client."""
    return openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=20)


ASK: list[Any] = [{"role": "user", "content": "count"}]


def test_the_official_client_lists_asks_and_streams(client: openai.OpenAI, chat: FakeClient) -> None:
    assert [model.id for model in client.models.list()] == ["starter"]
    assert client.models.retrieve("starter").id == "starter"
    whole = client.chat.completions.create(model="starter", messages=ASK, max_tokens=5)
    assert whole.choices[0].message.content == " ".join(WORDS)
    assert whole.choices[0].finish_reason == "length"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (7, 5, 12)
    chunks = list(
        client.chat.completions.create(
            model="starter", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(said) == " ".join(WORDS)
    assert len(said) == len(WORDS)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 12


def test_what_is_asked_for_reaches_the_model(client: openai.OpenAI, chat: FakeClient) -> None:
    parts = [{"type": "text", "text": "count "}, {"type": "text", "text": "on"}]
    client.chat.completions.create(
        model="base:starter",
        messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}],
        temperature=0,
        top_p=0.5,
        seed=7,
        stop="five",
        max_completion_tokens=9,
        extra_body={"top_k": 3},
    )
    voice, messages, sampling = chat.heard[-1]
    assert voice.key == "base:starter"
    assert messages == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "count on"}]
    assert sampling == Sampling(9, temperature=0, top_p=0.5, top_k=3, seed=7, stop=("five",))
    client.chat.completions.create(model="starter", messages=ASK)
    assert chat.heard[-1][2] == Sampling(LONGEST)


@pytest.mark.parametrize(
    ("wanted", "param", "said"),
    [
        ({"temperature": 9}, "temperature", "allowed: 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: 0 is not valid"),
        ({"n": 3}, "n", "n is not supported here"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "not supported"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0].role", "no supported role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "Only text"),
        ({"messages": [{"role": "user", "content": "too long"}]}, None, "The model is gone"),
        ({"stop": [1]}, "stop", "text or a list"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_shape(
    client: openai.OpenAI, wanted: dict[str, Any], param: str | None, said: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{"model": "starter", "messages": ASK, "stream": stream, **wanted})
        assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
        assert said in str(refused.value)


def test_an_unknown_model_names_those_that_are_there(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4' here. Available: starter"):
        client.chat.completions.create(model="gpt-4", messages=ASK)


def test_without_the_key_nothing_is_told(server: EndpointServer, chat: FakeClient) -> None:
    for key in ("wrong", KEY + "x", "ключ"):
        with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
            openai.OpenAI(base_url=server.url, api_key=key, max_retries=0).models.list()
    assert httpx.get(f"{server.url}/models").status_code == 401
    good = {"authorization": f"Bearer {KEY}"}
    port = server.url.removesuffix("/v1").rpartition(":")[2]
    for foreign in (
        "evil.example",
        f"localhost.evil.example:{port}",
        f"192.168.1.4:{port}",
        "127.0.0.1:1",
        "localhost",
    ):
        assert httpx.get(f"{server.url}/models", headers={**good, "host": foreign}).status_code == 421
    for page in ("https://evil.example", "http://localhost:3000", "null", f"https://127.0.0.1:{port}"):
        assert httpx.get(f"{server.url}/models", headers={**good, "origin": page}).status_code == 403
    for own in ("localhost", "127.0.0.1"):
        heads = {**good, "host": f"{own}:{port}", "origin": f"http://{own}:{port}"}
        assert httpx.get(f"{server.url}/models", headers=heads).status_code == 200
    assert httpx.get(f"{server.url}/files").status_code == 401
    missing = httpx.get(f"{server.url}/files", headers=good)
    assert missing.status_code == 404 and "not served here" in missing.json()["error"]["message"]
    broken = httpx.post(f"{server.url}/chat/completions", headers=good, content=b"{")
    assert broken.status_code == 400 and "not valid JSON" in broken.json()["error"]["message"]
    huge = httpx.post(f"{server.url}/chat/completions", headers=good, content=b" " * (9 * 2**20))
    assert huge.status_code == 413
    assert chat.heard == []


@pytest.mark.parametrize("sender", BODIES)
def test_what_clients_send_is_answered(server: EndpointServer, chat: FakeClient, sender: str) -> None:
    talk = [*ASK, {"role": "assistant", "content": None}, {"role": "user", "content": [{"type": "text", "text": "on"}]}]
    body = {"model": "starter", "messages": talk, **BODIES[sender]}
    answer = httpx.post(f"{server.url}/chat/completions", headers={"authorization": f"Bearer {KEY}"}, json=body)
    assert answer.status_code == 200 and "three four five" in answer.text or body.get("stream")
    assert answer.text.endswith("data: [DONE]\n\n") == bool(body.get("stream"))
    assert [message["content"] for message in chat.heard[-1][1]] == ["count", "", "on"]


def test_a_container_reaches_it_by_the_names_that_it_knows_this_machine_by(server: EndpointServer) -> None:
    good, port = {"authorization": f"Bearer {KEY}"}, server.url.removesuffix("/v1").rpartition(":")[2]
    for name in ("host.docker.internal", "HOST.docker.internal", "host.containers.internal", "gateway.docker.internal"):
        assert httpx.get(f"{server.url}/models", headers={**good, "host": f"{name}:{port}"}).status_code == 200
        assert httpx.get(f"{server.url}/models", headers={"host": f"{name}:{port}"}).status_code == 401
    for foreign in (
        "host.docker.internal.evil.example",
        "evil.docker.internal",
        "docker.internal",
        "host.docker.internal",
    ):
        answer = httpx.get(f"{server.url}/models", headers={**good, "host": f"{foreign}:{port[:-1]}"})
        assert answer.status_code == 421
    answer = httpx.get(f"{server.url}/models", headers={**good, "host": f"evil.docker.internal:{port}"})
    assert answer.status_code == 421 and "--allow-host" in answer.json()["error"]["message"]
    assert not Names(7860).served("host.docker.internal:7860"), "the app's own page has no business in a container"
    page = {**good, "host": f"host.docker.internal:{port}", "origin": "https://evil.example"}
    assert httpx.get(f"{server.url}/models", headers=page).status_code == 403


def test_further_names_and_another_address_are_the_persons_to_give(chat: FakeClient, tmp_path: Path) -> None:
    made = (chat, Workspace.open(tmp_path), base_chat_model("starter"), KEY, 0)
    served = EndpointServer(*made, address="127.0.0.2", also=["Nibble.home.example."])  # type: ignore[arg-type]
    served.start()
    try:
        good, port = {"authorization": f"Bearer {KEY}"}, served.url.removesuffix("/v1").rpartition(":")[2]
        assert served.url == f"http://127.0.0.2:{port}/v1"
        for name, status in (("nibble.home.example", 200), ("127.0.0.2", 200), ("evil.example", 421)):
            heads = {**good, "host": f"{name}:{port}"}
            assert httpx.get(f"{served.url}/models", headers=heads).status_code == status
        # RFC 9110, 7.2: Host has no port where it is the scheme's own, as behind a reverse proxy on 80 or 443
        for host, status in (("nibble.home.example", 200), ("Nibble.home.example:8443", 200), ("evil.example", 421)):
            assert httpx.get(f"{served.url}/models", headers={**good, "host": host}).status_code == status
            assert httpx.get(f"{served.url}/models", headers={"host": host}).status_code in (401, 421)
    finally:
        served.stop()
    for wrong in ({"address": "localhost"}, {"address": "192.0.2.1"}, {"also": ["http://x"]}, {"also": ["x:80"]}):
        with pytest.raises(NibbleError, match="--address|--allow-host"):
            EndpointServer(*made, **wrong)  # type: ignore[arg-type]


def test_what_is_not_served_says_what_is(client: openai.OpenAI, server: EndpointServer) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/completions is not served here: /v1/models"):
        client.completions.create(model="starter", prompt="x")
    with pytest.raises(openai.NotFoundError, match="/v1/responses is not served here"):
        client.responses.create(model="starter", input="x")
    answer = httpx.get(f"{server.url}/models/", headers={"authorization": f"Bearer {KEY}"})
    assert [each["id"] for each in answer.json()["data"]] == ["starter"]


def test_a_client_that_goes_away_ends_the_reply(client: openai.OpenAI, chat: FakeClient) -> None:
    for stream in (True, False):
        chat.left.clear()
        asked: Any = {"model": "starter", "messages": [{"role": "user", "content": "for ever"}]}
        if stream:
            answer = client.chat.completions.create(**asked, stream=True)
            next(iter(answer))
            answer.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=0.4).chat.completions.create(**asked)
        assert chat.left.wait(5)


def test_ten_at_once_are_all_answered(client: openai.OpenAI) -> None:
    told: list[str | None] = []

    def ask() -> None:
        reply = client.chat.completions.create(model="starter", messages=ASK)
        told.append(reply.choices[0].message.content)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert told == [" ".join(WORDS)] * 10


def test_it_listens_on_this_machine_only_and_a_taken_port_is_said(server: EndpointServer, tmp_path: Path) -> None:
    port, ours = httpx.URL(server.url).port, psutil.Process().net_connections("inet")
    listening = [each.laddr for each in ours if each.status == psutil.CONN_LISTEN]
    assert [place.ip for place in listening if place.port == port] == ["127.0.0.1"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NibbleError, match="in use by another program"):
            EndpointServer(None, Workspace.open(tmp_path), base_chat_model("starter"), KEY, taken.getsockname()[1])


def test_keys_are_long_and_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(new_key()) > 40 and new_key() != new_key()
    monkeypatch.delenv("NIBBLE_API_KEY", raising=False)
    assert given_key(None) is None
    monkeypatch.setenv("NIBBLE_API_KEY", KEY)
    assert given_key(None) == KEY
    file = tmp_path / "key"
    file.write_text("short\n")
    with pytest.raises(NibbleError, match="at least 16"):
        given_key(str(file))
    file.write_text(f"{KEY}2\n")
    assert given_key(str(file)) == f"{KEY}2"


@pytest.mark.full
def test_the_command_prints_one_document_serves_and_ends_well(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "core.cli", "serve", "base:starter", "--port", "0", "--json"]
    running = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert running.stdout is not None
    try:
        told = json.loads(running.stdout.readline())
        assert told["models"] == ["starter"]
        official = openai.OpenAI(base_url=told["url"], api_key=told["key"], max_retries=0)
        chunks = official.chat.completions.create(model="starter", messages=ASK, max_tokens=8, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
    assert running.stdout.read() == ""
