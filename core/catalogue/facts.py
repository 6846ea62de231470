"""Facts about well-known models and cards, so that memory is planned without a download or a GPU. Imports no torch."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from core.errors import ModelError, NibbleError
from core.system.compute_dtype import dtype_of_card, without_overflow
from core.workspace import PRESETS

MODELS = PRESETS / "models" / "facts"
CARDS = PRESETS / "cards"


@dataclass(frozen=True)
class ModelFacts:
    """A well-known model: `config` builds its architecture, and `parameters` is what that has, tied weights once.

    `card_total` is what its model card adds up to, where that is another number (`source` says why).
    """

    name: str
    title: str
    hub: str
    license: str
    parameters: int
    config: dict[str, Any]
    source: str
    card_total: int | None = None


@dataclass(frozen=True)
class Card:
    """A graphics card: memory in bytes, bandwidth in bytes a second, speeds in dense operations a second.

    All are NVIDIA's. `memory_from` says whose figure the memory is: 'cuda' (what a program sees), 'nvidia-smi' (1 to
    3 % more than that) or 'nominal'. A card has `flops_bf16`, or `flops_fp16` where it computes no bf16; both are with
    sums in 32 bits.
    """

    name: str
    title: str
    memory_bytes: int
    memory_from: str
    compute_capability: tuple[int, int]
    memory_bandwidth: float
    flops_bf16: float | None
    flops_fp16: float | None
    flops_fp32: float
    source: str

    @property
    def flops(self) -> dict[str, float]:
        """Operations a second by dtype, of those that it computes in."""
        known = {"bfloat16": self.flops_bf16, "float16": self.flops_fp16, "float32": self.flops_fp32}
        return {dtype: rate for dtype, rate in known.items() if rate is not None}

    def computes_in(self, model_type: str = "") -> str:
        """The dtype that a model of transformers' `model_type` is computed in."""
        return without_overflow(dtype_of_card(self.compute_capability, self.title), model_type)[0]


@cache
def model_facts() -> Mapping[str, ModelFacts]:
    """The known models by name."""
    return {file.stem: ModelFacts(name=file.stem, **_values(file)) for file in sorted(MODELS.glob("*.yaml"))}


def find_model_facts(name: str) -> ModelFacts:
    """The known model of that name or Hugging Face id, whatever its case. Raises ModelError where there is none."""
    wanted, known = name.strip().lower(), model_facts()
    for facts in known.values():
        if wanted in (facts.name, facts.hub.lower()):
            return facts
    raise ModelError(f"Unknown model {name[:200]!r}. {_near(wanted, known)}")


@cache
def cards() -> Mapping[str, Card]:
    """The known cards by name."""
    return {file.stem: _card(file) for file in sorted(CARDS.glob("*.yaml"))}


def find_card(name: str) -> Card:
    """The known card of that name, whatever its case. Raises NibbleError where there is none."""
    wanted, known = name.strip().lower(), cards()
    if wanted in known:
        return known[wanted]
    raise NibbleError(f"Unknown card {name[:200]!r}. {_near(wanted, known)}")


def _card(file: Path) -> Card:
    values = {"flops_bf16": None, "flops_fp16": None, **_values(file)}
    major, minor = values.pop("compute_capability").split(".")
    return Card(name=file.stem, compute_capability=(int(major), int(minor)), **values)


def _values(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return values


def _near(wanted: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted, known, n=5, cutoff=0.5)
    return f"Similar: {', '.join(near)}." if near else f"Known: {', '.join(known)}."
