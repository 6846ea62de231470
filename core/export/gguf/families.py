"""The families that go into a GGUF: llama.cpp's name for each, and how it wants its tensors laid out.

Sources: the graphs of llama.cpp (src/models), which say what each architecture computes, and the tensor names of its
`gguf` package.
"""

import math
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH

from core.export.gguf.settings import INSTEAD, refuse_settings, rope_of
from core.export.shared.destination import ExportError


@dataclass(frozen=True)
class GgufFamily:
    """How one architecture is written.

    `turns_pairs`: rotary positions turn neighbouring numbers, not halves, so rows of queries and keys change places.
    `norms_from_one`: norms are stored less one by transformers and whole by llama.cpp. `windows`: llama.cpp knows of
    the family's sliding windows; of one where it does not, the context ends with the window.
    """

    arch: MODEL_ARCH
    turns_pairs: bool = False
    norms_from_one: bool = False
    windows: bool = False


FAMILIES = {
    "llama": GgufFamily(MODEL_ARCH.LLAMA, turns_pairs=True),
    "mistral": GgufFamily(MODEL_ARCH.LLAMA, turns_pairs=True),
    "qwen2": GgufFamily(MODEL_ARCH.QWEN2),
    "qwen3": GgufFamily(MODEL_ARCH.QWEN3),
    "gemma": GgufFamily(MODEL_ARCH.GEMMA, norms_from_one=True),
    "gemma2": GgufFamily(MODEL_ARCH.GEMMA2, norms_from_one=True, windows=True),
    "gemma3_text": GgufFamily(MODEL_ARCH.GEMMA3, norms_from_one=True, windows=True),
}


def family_of(config: dict[str, Any]) -> GgufFamily:
    """The family of a config.json. Raises ExportError where it is none of these."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ExportError(
            f"A GGUF of a {kind} model cannot be made here; these can: {', '.join(FAMILIES)}. {INSTEAD} "
            "llama.cpp's own converter may read it."
        )
    return FAMILIES[kind]


class TensorLayout:
    """The settings and the tensors' names and shapes of one model, as llama.cpp wants them. `config`: transformers'."""

    def __init__(self, family: GgufFamily, config: Any) -> None:
        self.family, self.config = family, config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self._names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
        self._rope = rope_of(config)
        refuse_settings(family.arch, config, self.head_size)

    def name(self, name: str) -> str:
        """llama.cpp's name for the tensor that transformers calls `name`. Raises ExportError."""
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ExportError(f"llama.cpp does not support {name} in a {self.config.model_type} model. {INSTEAD}")
        return str(found)

    def arranged(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The values of `name` as llama.cpp computes with them; of an adapter's B as of the matrix that it adds to."""
        if self.family.norms_from_one and name.endswith("norm.weight"):
            return tensor + 1
        if self.family.turns_pairs and ".q_proj." in name:
            return _in_pairs(tensor, self.heads)
        if self.family.turns_pairs and ".k_proj." in name:
            return _in_pairs(tensor, self.kv_heads)
        return tensor

    @property
    def context(self) -> int:
        """How many tokens llama.cpp may be given. Where it knows of no windows, the context ends with the window."""
        longest = int(self.config.max_position_embeddings)
        window = getattr(self.config, "sliding_window", None)
        if window is None or self.family.windows or not getattr(self.config, "use_sliding_window", True):
            return longest
        return min(longest, int(window))

    def extra(self) -> dict[str, torch.Tensor]:
        """Tensors that transformers computes and llama.cpp reads: what Llama 3 divides its rotary frequencies by."""
        if self._rope.get("rope_type") != "llama3":
            return {}
        return {"rope_freqs.weight": _llama_3_factors(self._rope, self.head_size)}


def _in_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head in the order 0, half, 1, half + 1, …"""
    rows = tensor.shape[0]
    return tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _llama_3_factors(rope: dict[str, Any], head_size: int) -> torch.Tensor:
    """By what each frequency is divided (Llama 3.1): low ones by `factor`, high ones not, those between smoothly."""
    frequencies = float(rope["rope_theta"]) ** -(torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) / (2 * math.pi / frequencies)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / float(rope["factor"]) + smooth)).float()
