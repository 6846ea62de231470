"""The parameters of a chat completion: which are used, which values change nothing, and which are refused.

Source: OpenAI's API reference for /v1/chat/completions, and what its clients send beyond it: the settings of servers
such as llama.cpp's, vLLM's and Ollama's, which Open WebUI, SillyTavern, Jan and others pass on. Nothing is ignored
silently.
"""

from typing import Any

from core.generation.sampling import LONGEST, Sampling, SamplingError
from core.serve.protocol import RequestError

# Read elsewhere: core/serve/request.py.
READ = frozenset({"model", "messages", "stream", "stream_options", "stop", "chat_template_kwargs", "reasoning_effort"})
# As a client names it: as we do.
_SAME = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
NUMBERS = {**{name: name for name in _SAME}, "repeat_penalty": "repetition_penalty"}
PENALTIES = ("repeat_penalty", "repetition_penalty")
WHOLE = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "top_k": "top_k", "seed": "seed"}
# What other servers take -1 for: no limit, off, any.
MINUS_ONE = {"max_new_tokens": LONGEST, "top_k": 0, "seed": None}
# Whatever they say, a model on this machine answers the same: labels, caches, prices, and settings of what is off.
HARMLESS = frozenset(
    {"user", "metadata", "safety_identifier", "service_tier", "prediction", "parallel_tool_calls"}
    | {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_prompt", "cache_salt", "keep_alive"}
    | {"mirostat_tau", "mirostat_eta", "xtc_threshold", "dynatemp_exponent"}
    | {"dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"}
)
# The values of others that ask for nothing; any other value is refused.
NOTHING: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({}, []),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "audio": (),
    "modalities": (["text"],),
    "moderation": (),
    "web_search_options": (),
    "store": (False,),
    "verbosity": ("medium",),
    # vLLM's
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "echo": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "documents": ([],),
    # llama.cpp's and Ollama's
    "typical_p": (1,),
    "typ_p": (1,),
    "tfs_z": (1,),
    "top_a": (0,),
    "top_n_sigma": (-1, 0),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "n_probs": (0,),
    "n_keep": (0,),
    "min_keep": (0,),
    "grammar": ("",),
    "json_schema": ({},),
    "reasoning_format": ("none",),
    "timings_per_token": (False,),
    "return_progress": (False,),
    "return_tokens": (False,),
}
# Instead of what is not known here, where it is another name for what is.
INSTEAD = {
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "prompt": "messages",
    "input": "messages",
    "enable_thinking": "chat_template_kwargs",
    "think": "chat_template_kwargs",
    "thinking": "chat_template_kwargs",
    "reasoning": "reasoning_effort",
}
KNOWN = READ | NUMBERS.keys() | WHOLE.keys() | HARMLESS | NOTHING.keys() | {"repeat_last_n"}


def refuse_parameters(given: dict[str, Any]) -> None:
    """Raise RequestError for a parameter that is unknown, or whose value is not supported."""
    for name, value in given.items():
        if value is None:
            continue
        if name not in KNOWN:
            instead = f" Use {INSTEAD[name]}." if name in INSTEAD else ""
            raise RequestError(400, f"Unknown parameter: {name[:60]!r}.{instead}", name[:60], "unknown_parameter")
        if name in NOTHING and value not in NOTHING[name]:
            raise RequestError(400, f"{name} is not supported here.", name, "unsupported_parameter")
    penalty = next((name for name in PENALTIES if given.get(name) not in (None, 1)), None)
    if given.get("repeat_last_n") not in (None, -1) and penalty is not None:
        message = f"repeat_last_n is not supported here: {penalty} covers the whole conversation (-1)."
        raise RequestError(400, message, "repeat_last_n", "unsupported_parameter")


def read_sampling(given: dict[str, Any]) -> Sampling:
    """The sampling settings; defaults are the app's, but a reply may fill the context. Raises RequestError."""
    wanted: dict[str, Any] = {"max_new_tokens": LONGEST}
    named: dict[str, str] = {}
    for name, ours in (*NUMBERS.items(), *WHOLE.items()):
        if given.get(name) is None:
            continue
        value = _number(name, given[name], whole=name in WHOLE)
        if value == -1 and ours in MINUS_ONE:
            value = MINUS_ONE[ours]
        if ours in named and wanted[ours] != value:
            raise RequestError(400, f"{named[ours]} and {name} contradict each other. Send only one of them.", name)
        wanted[ours], named[ours] = value, name
    wanted["max_new_tokens"] = min(wanted["max_new_tokens"], LONGEST)
    if wanted.get("seed") is not None and -(2**63) <= wanted["seed"] < 0:
        wanted["seed"] %= 2**63  # OpenAI's are 64 bits with a sign
    try:
        return Sampling(**wanted, stop=_stops(given.get("stop")))
    except SamplingError as error:
        name = named.get(error.setting, error.setting)
        raise RequestError(400, str(error).replace(error.setting, name), name, "invalid_value") from None


def _number(name: str, value: Any, whole: bool) -> Any:
    if isinstance(value, float) and whole and value.is_integer():
        value = int(value)  # some languages know no other numbers
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise RequestError(400, f"{name} must be a {'whole ' if whole else ''}number.", name, "invalid_type")
    return value


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise RequestError(400, "stop must be a text or a list of texts.", "stop", "invalid_type")
    return tuple(stops)
