"""What clients of OpenAI's API send beside a model and messages, in our own words of each one's shape."""

from __future__ import annotations

from typing import Any

# Bodies in the shape that clients send, as far as it is not a bare model with messages: by client.
BODIES: dict[str, dict[str, Any]] = {
    "OpenAI's Python client": {"stream": True, "stream_options": {"include_usage": True}, "store": False, "user": "u"},
    "Open WebUI": {
        "stream": True,
        "temperature": 2,
        "top_p": 0,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 0,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "repeat_penalty": 1.1,
        "max_tokens": -1,
        "stop": ["\n\n"],
        "logit_bias": {},
    },
    "SillyTavern": {
        "temperature": 1,
        "max_tokens": 300,
        "max_completion_tokens": None,
        "stream": False,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_p": 1,
        "top_k": 0,
        "stop": [],
        "logit_bias": {},
        "seed": -1,
        "n": 1,
    },
    "LibreChat": {
        "user": "65f",
        "stream": True,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "stop": None,
    },
    "LangChain": {"temperature": 0.7, "n": 1, "stream": False, "parallel_tool_calls": None, "logprobs": False},
    "LlamaIndex": {"temperature": 0.1, "max_tokens": None, "stream": False},
    "LiteLLM": {"temperature": 0.0, "metadata": {"trace": "1"}, "stream_options": {"include_usage": True}},
    "Vercel's AI SDK": {
        "max_tokens": 100,
        "temperature": 0,
        "response_format": {"type": "text"},
        "tool_choice": "auto",
    },
    "Jan": {
        "temperature": 0.6,
        "max_tokens": 2048.0,
        "cache_prompt": True,
        "repeat_last_n": 64,
        "repeat_penalty": 1,
        "typical_p": 1,
        "mirostat": 0,
        "mirostat_tau": 5,
        "dry_multiplier": 0,
        "dry_base": 1.75,
        "xtc_probability": 0,
        "xtc_threshold": 0.1,
        "ignore_eos": False,
    },
    "Home Assistant": {"max_tokens": 150, "top_p": 1.0, "temperature": 1.0, "user": "01J", "store": False, "tools": []},
    "Zed": {"stop": [], "max_completion_tokens": 8192, "temperature": 1.0, "parallel_tool_calls": False, "tools": []},
    "Cline": {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}, "tool_choice": "none"},
}
