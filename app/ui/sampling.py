"""How tokens are drawn, as the settings on the Chat and the Arena tab say."""

from collections.abc import Mapping
from typing import Any

from core.generation.sampling import Sampling, SamplingError

KINDS = {
    "greedy": bool,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "repetition_penalty": float,
    "max_new_tokens": int,
}


def sampling_of(values: Mapping[str, Any]) -> Sampling:
    """The sampling of these settings by name, as far as they are given. Raises SamplingError for one that cannot be."""
    seed = str(values.get("seed") or "").strip()
    if seed and not seed.isdecimal():
        raise SamplingError("seed", f"Seed: {seed[:20]!r} is not valid; use a whole number, or leave it empty.")
    stop = tuple(line for line in (values.get("stop") or "").splitlines() if line.strip())
    drawn: dict[str, Any] = {name: kind(values[name]) for name, kind in KINDS.items() if name in values}
    return Sampling(**drawn, seed=int(seed) if seed else None, stop=stop)
