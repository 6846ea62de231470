"""llama.cpp itself, where its `xllamacpp` wheel is installed: loads a GGUF on the CPU and is asked questions."""

import json
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 600


class Refused(Exception):
    """What llama.cpp answers in the place of a result, in its own words."""


class LlamaCpp:
    """A GGUF in llama.cpp, with an adapter over it or without. It is let go with the object's last reference.

    It is loaded at the first question.
    """

    def __init__(self, model: Path, context: int, adapter: Path | None = None) -> None:
        self._model, self._context, self._adapter = model, context, adapter

    @cached_property
    def _server(self) -> Any:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(self._model)
        settings.n_ctx = self._context
        settings.n_parallel = 1
        settings.n_gpu_layers = 0
        settings.port = 0
        # It would round what it remembers of the prompt to fp16: another difference than the one to be measured.
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.verbosity = 0
        settings.warmup = False
        settings.use_jinja = True
        # A conversation that ends with a reply is laid out as it is, not as one that goes on within it.
        settings.prefill_assistant = False
        if self._adapter is not None:
            settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(self._adapter), 1.0)]
        try:
            server = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise Refused(f"llama.cpp does not load {self._model.name}: {error}") from None
        # A server that is let go before its loop runs is waited for without end: answered once, it does.
        _ask(server, "/completion", {"prompt": [0], "n_predict": 0})
        return server

    def tokens(self, text: str, add_special: bool = False) -> list[int]:
        """`text` as tokens, special ones recognised; `add_special`: with the first and last that the file asks for."""
        asked = {"content": text, "add_special": add_special, "parse_special": True}
        return list(self._ask("/tokenize", asked)["tokens"])

    def text(self, tokens: list[int]) -> str:
        """What the tokens say, special ones too."""
        return str(self._ask("/detokenize", {"tokens": tokens})["content"])

    @cached_property
    def first(self) -> tuple[int, str] | None:
        """The token that it puts before every prompt, and how that is written; None where the file asks for none."""
        plain, whole = self.tokens("a"), self.tokens("a", add_special=True)
        if len(whole) == len(plain) or whole[: len(plain)] == plain:
            return None
        return whole[0], self.text(whole[:1])

    def rendered(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, prompt: bool = True
    ) -> str:
        """What its chat template makes of a conversation; `prompt`: ready for a reply. Raises Refused.

        A first token that llama.cpp adds to every prompt is not in it: it is taken off what the template writes.
        """
        asked = {"messages": messages, "add_generation_prompt": prompt, **({"tools": tools} if tools else {})}
        return str(self._ask("/apply-template", asked)["prompt"])

    def reply(self, prompt: list[int], most: int, stop: list[str] | None = None) -> list[int]:
        """The greedy reply to a prompt's tokens, at most so many, with the token that ends it.

        `stop`: texts that end it too, and are not in it.
        """
        asked = {"prompt": prompt, "n_predict": most, "temperature": 0, "top_k": 1, "cache_prompt": False}
        answer = self._ask("/completion", {**asked, "return_tokens": True, "stop": stop or []})
        tokens = list(answer["tokens"])
        return self.within(tokens, answer["content"]) if answer.get("stop_type") == "word" else tokens

    def likely(self, prompt: list[int], count: int) -> dict[int, float]:
        """The logarithms of the probabilities of the `count` likeliest tokens after a prompt's tokens."""
        # It tells them beside a token that is written, so one is forced on it; what it tells is of before that.
        forced = [[self.tokens("a")[0], 1000.0]]
        asked = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": count, "logit_bias": forced}
        found = self._ask("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
        return {int(each["id"]): float(each["logprob"]) for each in found}

    def within(self, tokens: list[int], content: str) -> list[int]:
        """As many of the tokens as say no more than `content`."""
        kept = [n for n in range(len(tokens) + 1) if content.startswith(self.text(tokens[:n]))]
        return tokens[: kept[-1]]

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        return _ask(self._server, path, body)


def _ask(server: Any, path: str, body: dict[str, Any]) -> Any:
    """Raises Refused."""
    request = urllib.request.Request(
        server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Refused(_said(error.read())) from None


def _said(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:200]
