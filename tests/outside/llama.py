"""llama.cpp as a stranger would start it: a server over a GGUF file, asked through OpenAI's API."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp

Message = dict[str, str]


class Server:
    """Nothing is known of the model but its file: its own tokenizer, chat template and end of turn are used."""

    def __init__(self, file: Path) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.port = 512, 1, 0, 0
        settings.use_jinja, settings.warmup, settings.verbosity = True, False, 0
        # Rounding what it remembers of the prompt would be another difference than the file's.
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(settings)

    def prompt(self, messages: list[Message]) -> str:
        """What the file's own template makes of a conversation."""
        return str(self._ask("/apply-template", {"messages": messages})["prompt"])

    def tokens(self, text: str) -> list[int]:
        """A prompt as the file's own tokenizer splits it."""
        asked = {"content": text, "add_special": False, "parse_special": True}
        return list(self._ask("/tokenize", asked)["tokens"])

    def reply(self, messages: list[Message], most: int) -> str:
        """The greedy reply."""
        asked = {"messages": messages, "temperature": 0, "top_k": 1, "max_tokens": most}
        return str(self._ask("/v1/chat/completions", asked)["choices"][0]["message"]["content"])

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        address = f"{self._server.listening_address}{path}"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        here = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with here.open(request, timeout=120) as answer:
            return json.loads(answer.read())
