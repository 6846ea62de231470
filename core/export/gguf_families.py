"""The families that go into a GGUF: llama.cpp's name for each, its settings, and how it wants tensors laid out.

Sources: the graphs of llama.cpp (src/models), which say what each architecture computes, and the keys and tensor names
of its `gguf` package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType

from core.export.place import ExportError

INSTEAD = "Export the merged model or the adapter instead."
GEMMA_3_PATTERN = 6


@dataclass(frozen=True)
class Family:
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
    "llama": Family(MODEL_ARCH.LLAMA, turns_pairs=True),
    "mistral": Family(MODEL_ARCH.LLAMA, turns_pairs=True),
    "qwen2": Family(MODEL_ARCH.QWEN2),
    "qwen3": Family(MODEL_ARCH.QWEN3),
    "gemma": Family(MODEL_ARCH.GEMMA, norms_from_one=True),
    "gemma2": Family(MODEL_ARCH.GEMMA2, norms_from_one=True, windows=True),
    "gemma3_text": Family(MODEL_ARCH.GEMMA3, norms_from_one=True, windows=True),
}


def family_of(config: dict[str, Any]) -> Family:
    """The family of a config.json. Raises ExportError where it is none of these."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ExportError(
            f"A GGUF of a {kind} model cannot be made here; these can: {', '.join(FAMILIES)}. {INSTEAD} "
            "llama.cpp's own converter may read it."
        )
    return FAMILIES[kind]


class Layout:
    """The settings and the tensors' names and shapes of one model, as llama.cpp wants them. `config`: transformers'."""

    def __init__(self, family: Family, config: Any) -> None:
        self.family, self.config = family, config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self._names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
        self._rope = _rope(config)
        _refuse_settings(family, config, self.head_size)

    def name(self, name: str) -> str:
        """llama.cpp's name for the tensor that transformers calls `name`. Raises ExportError."""
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ExportError(f"llama.cpp has no place for {name} in a {self.config.model_type} model. {INSTEAD}")
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

    def as_before(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What `arranged` was made of."""
        if self.family.norms_from_one and name.endswith("norm.weight"):
            return tensor - 1
        for part, heads in ((".q_proj.", self.heads), (".k_proj.", self.kv_heads)):
            if self.family.turns_pairs and part in name:
                return _in_halves(tensor, heads)
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

    def write_settings(self, writer: GGUFWriter) -> None:
        """Everything that the architecture is told, beside its tensors."""
        config = self.config
        writer.add_vocab_size(config.vocab_size)
        writer.add_context_length(self.context)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_size)
        writer.add_value_length(self.head_size)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(self.head_size)
        writer.add_rope_freq_base(float(self._rope.get("rope_theta", 10_000.0)))
        _write_rope_scaling(writer, self._rope, config)
        if self.family.windows:
            writer.add_sliding_window(config.sliding_window)
        if config.model_type == "gemma2":
            writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
            writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _in_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of each head in the order 0, half, 1, half + 1, …"""
    rows = tensor.shape[0]
    return tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _in_halves(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """`_in_pairs` undone."""
    rows = tensor.shape[0]
    return tensor.reshape(heads, rows // heads // 2, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _rope(config: Any) -> dict[str, Any]:
    """The rotary settings of layers with full attention."""
    settings = dict(config.rope_parameters or {})
    return dict(settings.get("full_attention", settings))


def _write_rope_scaling(writer: GGUFWriter, rope: dict[str, Any], config: Any) -> None:
    kind = rope.get("rope_type", "default")
    if kind in ("default", "llama3"):
        return
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn" and not {"attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow"} & set(rope):
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(int(original))
    else:
        raise ExportError(f"This model stretches its positions by {kind!r}, which is not written here. {INSTEAD}")


def _llama_3_factors(rope: dict[str, Any], head_size: int) -> torch.Tensor:
    """By what each frequency is divided (Llama 3.1): low ones by `factor`, high ones not, those between smoothly."""
    frequencies = float(rope["rope_theta"]) ** -(torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) / (2 * math.pi / frequencies)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / float(rope["factor"]) + smooth)).float()


def _refuse_settings(family: Family, config: Any, head_size: int) -> None:
    """Raise ExportError for settings of the family that llama.cpp's graph fixes otherwise."""
    scalar = getattr(config, "query_pre_attn_scalar", None)
    largest = config.num_hidden_layers in (46, 62) and scalar == config.hidden_size // config.num_attention_heads
    if family.windows and scalar != head_size and not largest:
        raise ExportError(f"This {config.model_type} model scales its attention as llama.cpp does not. {INSTEAD}")
    if config.model_type == "gemma3_text":
        full = [number for number, kind in enumerate(config.layer_types) if kind == "full_attention"]
        if any((number + 1) % GEMMA_3_PATTERN for number in full):
            raise ExportError(f"This model's windows slide in other layers than llama.cpp's Gemma 3. {INSTEAD}")
    if getattr(config, "mlp_bias", False):
        raise ExportError(f"This model has biases that llama.cpp does not compute with. {INSTEAD}")
