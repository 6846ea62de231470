"""What OpenAI's API and its common clients send is done, asks for nothing, or is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase, CompletionCreateParamsStreaming

from core.generation.sampling import LONGEST, Sampling
from core.serve.parameters import KNOWN
from core.serve.protocol import RequestError
from core.serve.request import Wanted, read_request
from tests.core.serve.client_bodies import BODIES

ASK = [{"role": "user", "content": "hello"}]


def _read(**body: Any) -> Wanted:
    return read_request(json.dumps({"model": "m", "messages": ASK, **body}).encode())


@pytest.mark.parametrize("client", BODIES)
def test_what_clients_send_is_read(client: str) -> None:
    assert _read(**BODIES[client]).sampling.max_new_tokens <= LONGEST


def test_what_is_asked_for_is_what_the_model_is_drawn_with() -> None:
    wanted = _read(**BODIES["Open WebUI"])
    assert wanted.stream and not wanted.with_usage
    assert wanted.sampling == Sampling(
        LONGEST,
        temperature=2,
        top_p=0,
        top_k=40,
        min_p=0.05,
        seed=0,
        frequency_penalty=0.5,
        presence_penalty=0.5,
        repetition_penalty=1.1,
        stop=("\n\n",),
    )
    tavern = _read(**BODIES["SillyTavern"]).sampling
    assert (tavern.seed, tavern.top_k, tavern.max_new_tokens) == (None, 0, 300)
    assert _read(top_k=-1, max_completion_tokens=7, seed=-2).sampling == Sampling(7, top_k=0, seed=2**63 - 2)
    assert _read(max_tokens=9, max_completion_tokens=9).sampling.max_new_tokens == 9
    assert _read(stop="x").sampling.stop == ("x",) and _read(stop=None).sampling.stop == ()
    assert _read(stream_options={"include_usage": True}).with_usage
    thinking = _read(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="none")
    assert thinking.asked == {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "none"}


def test_every_parameter_of_openais_own_schema_is_known() -> None:
    named = {**CompletionCreateParamsBase.__annotations__, **CompletionCreateParamsStreaming.__annotations__}
    assert set(named) <= KNOWN
    for name in named:
        assert _read(**{"model": "m", name: None} if name not in ("model", "messages") else {}).sampling


@pytest.mark.parametrize(
    ("body", "param", "code", "said"),
    [
        ({"temperature": 3}, "temperature", "invalid_value", "temperature: 3 is not valid; allowed: 0 to 2"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "must be a number"),
        ({"top_p": 1.5}, "top_p", "invalid_value", "allowed: 0 to 1"),
        ({"min_p": 2}, "min_p", "invalid_value", "allowed: 0 to 1"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "max_tokens: 0"),
        ({"max_completion_tokens": -2}, "max_completion_tokens", "invalid_value", "max_completion_tokens: -2"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type", "whole number"),
        ({"max_tokens": True}, "max_tokens", "invalid_type", "whole number"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", None, "contradict each other"),
        ({"repeat_penalty": 1.1, "repeat_last_n": 64}, "repeat_last_n", "unsupported_parameter", "whole conversation"),
        ({"repetition_penalty": 1.1, "repeat_last_n": 64}, "repeat_last_n", "unsupported_parameter", "repetition_pen"),
        ({"repeat_penalty": 3}, "repeat_penalty", "invalid_value", "repeat_penalty: 3"),
        ({"seed": 2**63}, "seed", "invalid_value", "seed"),
        ({"seed": "1"}, "seed", "invalid_type", "whole number"),
        ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value", "allowed: -2 to 2"),
        ({"stop": [1]}, "stop", "invalid_type", "text or a list"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value", "at most 16"),
        ({"n": 2}, "n", "unsupported_parameter", "n is not supported"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter", "not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter", "not supported"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter", "not supported"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter", "not supported"),
        ({"store": True}, "store", "unsupported_parameter", "not supported"),
        ({"mirostat": 2}, "mirostat", "unsupported_parameter", "not supported"),
        ({"enable_thinking": False}, "enable_thinking", "unknown_parameter", "Use chat_template_kwargs"),
        ({"num_ctx": 4096}, "num_ctx", "unknown_parameter", "Unknown parameter: 'num_ctx'"),
        ({"stream": "yes"}, "stream", "invalid_type", "true or false"),
        ({"stream_options": {"obfuscate": True}}, "stream_options.obfuscate", "unsupported_parameter", "not supported"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value", "one of none"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs", "invalid_type", "an object"),
        ({"model": ""}, "model", "invalid_type", "the name of a model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], param: str, code: str | None, said: str) -> None:
    with pytest.raises(RequestError) as refused:
        _read(**body)
    told = refused.value.body()["error"]
    assert (refused.value.status, told["param"], told["code"]) == (400, param, code)
    assert said in told["message"] and told["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "assistant", "content": None, "tool_calls": [], "refusal": None}, ""),
        ({"role": "assistant", "content": None, "refusal": "I won't."}, "I won't."),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "audio": None}, "No."),
        ({"role": "assistant"}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}, "a"),
        ({"role": "developer", "content": "c"}, "c"),
    ],
)
def test_messages_are_read_as_openai_allows_them(message: dict[str, Any], read: str) -> None:
    roles = {"developer": "system"}
    role = roles.get(message["role"], message["role"])
    assert _read(messages=[message, *ASK]).messages == [{"role": role, "content": read}, *ASK]


def test_a_name_goes_with_its_message() -> None:
    assert _read(messages=[{**ASK[0], "name": "anna"}]).messages == [{**ASK[0], "name": "anna"}]


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        ({"role": "user", "content": None}, "messages[0].content", "must be text"),
        ({"role": "user"}, "messages[0].content", "must be text"),
        ({"role": "tool", "content": "4", "tool_call_id": "1"}, "messages[0].role", "tools are not supported"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            "messages[0].tool_calls",
            "not supported",
        ),
        ({"role": "assistant", "content": "a", "prefix": True}, "messages[0].prefix", "not supported"),
        ({"role": "judge", "content": "a"}, "messages[0].role", "system, developer, user, assistant"),
        ({"role": ["user"], "content": "a"}, "messages[0].role", "no supported role"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0]", "Only text"),
        ({"role": "user", "content": "a", "name": 5}, "messages[0].name", "must be text"),
        ("hello", "messages[0].role", "no supported role"),
    ],
)
def test_a_message_that_cannot_be_read_is_refused_by_its_place(message: Any, param: str, said: str) -> None:
    with pytest.raises(RequestError) as refused:
        _read(messages=[message])
    assert refused.value.param == param and said in str(refused.value)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"temperature": NaN}', b"\xff", b"[" * 99_999, b'{"seed": 1' + b"0" * 9999]
)
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        read_request(body)
    assert refused.value.status == 400


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("text") | st.just("user"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "include_usage"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), ANYTHING, max_size=6))
def test_whatever_is_sent_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        wanted = _read(**body)
    except RequestError as refused:
        assert 400 <= refused.status < 500 and str(refused)
        json.dumps(refused.body())
    else:
        json.dumps([wanted.messages, wanted.asked])


def test_what_the_documentation_says_is_served_is_what_is_served() -> None:
    from core.serve.parameters import NUMBERS, READ, WHOLE
    from core.workspace import ROOT

    told = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in told or f"`{name}." in told for name in {*NUMBERS, *WHOLE, *READ})
