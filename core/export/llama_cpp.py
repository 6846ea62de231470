"""llama.cpp itself, where its `xllamacpp` wheel is installed: loads a GGUF on the CPU and is asked questions."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 600


def is_installed() -> bool:
    """Whether llama.cpp can be asked here."""
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaCpp:
    """A GGUF loaded by llama.cpp, with an adapter over it or without. It is let go with the object's last reference."""

    def __init__(self, model: Path, context: int, adapter: Path | None = None) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(model)
        settings.n_ctx = context
        settings.n_parallel = 1
        settings.n_gpu_layers = 0
        settings.port = 0
        # It would round what it remembers of the prompt to fp16: another difference than the one to be measured.
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.verbosity = 0
        settings.warmup = False
        settings.use_jinja = True
        if adapter is not None:
            settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
        self._server = xllamacpp.Server(settings)

    def tokens(self, text: str) -> list[int]:
        """`text` as tokens, special ones recognised, none added."""
        asked = {"content": text, "add_special": False, "parse_special": True}
        return list(self._ask("/tokenize", asked)["tokens"])

    def rendered(self, messages: list[dict[str, str]]) -> str:
        """What its chat template makes of a conversation, ready for a reply."""
        return str(self._ask("/apply-template", {"messages": messages})["prompt"])

    def reply(self, prompt: list[int], most: int) -> list[int]:
        """The greedy reply to a prompt's tokens, at most so many, without the token that ends it."""
        asked = {"prompt": prompt, "n_predict": most, "temperature": 0, "top_k": 1, "cache_prompt": False}
        return list(self._ask("/completion", {**asked, "return_tokens": True})["tokens"])

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.loads(answer.read())
