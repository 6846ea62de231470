"""Which settings of a model's generation_config.json are used: what ends a reply, and its sampling numbers.

The rest of that file selects search strategies (beams, code from the Hub); the chat samples or is greedy.
"""

from typing import Any

from transformers import GenerationConfig

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_NUMBERS = ("temperature", "top_p", "top_k", "repetition_penalty")


def plain_generation(given: Any) -> GenerationConfig:
    """A generation config with the settings of `given` that are used; values of the wrong type are left out."""
    kept: dict[str, Any] = {}
    for name in _TOKENS:
        value = getattr(given, name)
        ids = value if isinstance(value, list) else [value]
        if ids and all(isinstance(each, int) and each >= 0 for each in ids):
            kept[name] = value
    for name in _NUMBERS:
        value = getattr(given, name)
        if isinstance(value, (int, float)) and value >= 0:
            kept[name] = value
    return GenerationConfig(do_sample=given.do_sample is True, **kept)
