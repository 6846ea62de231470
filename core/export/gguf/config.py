"""What llama.cpp computes from a GGUF, as a configuration of transformers: from the file's own words alone.

Where the file is silent, what llama.cpp takes for granted is taken (src/llama-model.cpp, src/models), not what the
run's base says: a setting that was lost on the way shows in the answers.
"""

from __future__ import annotations

from typing import Any

from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFReader
from transformers import AutoConfig

from core.export.destination import Broken
from core.export.gguf.settings import PERIODS, WINDOWED, attention_divisor

KINDS = {
    MODEL_ARCH.LLAMA: "llama",
    MODEL_ARCH.QWEN2: "qwen2",
    MODEL_ARCH.QWEN3: "qwen3",
    MODEL_ARCH.GEMMA: "gemma",
    MODEL_ARCH.GEMMA2: "gemma2",
    MODEL_ARCH.GEMMA3: "gemma3_text",
}
_USUAL_BASE = 10_000.0


class GgufSettings:
    """The metadata of one GGUF."""

    def __init__(self, reader: GGUFReader) -> None:
        """Raises Broken for an architecture that Nibble writes none of."""
        self._fields = reader.fields
        self.tensors = {tensor.name for tensor in reader.tensors}
        name = self.value("general.architecture")
        known = {MODEL_ARCH_NAMES[arch]: arch for arch in KINDS}
        if name not in known:
            raise Broken(f"The GGUF says that it is a {name} model. The export was deleted.")
        self.name, self.arch = str(name), known[str(name)]

    def value(self, key: str, otherwise: Any = None) -> Any:
        """The value of `key`, or `otherwise` where the file has none."""
        field = self._fields.get(key)
        return otherwise if field is None else field.contents()

    def own(self, key: str, otherwise: Any = None) -> Any:
        """The value of the architecture's `key`. Raises Broken where there is none, and no `otherwise`."""
        found = self.value(f"{self.name}.{key}", otherwise)
        if found is None:
            raise Broken(
                f"The GGUF does not say {key}, without which llama.cpp cannot load it. The export was deleted."
            )
        return found


def config_of(settings: GgufSettings) -> Any:
    """The configuration. Raises Broken where llama.cpp could not load the file."""
    own, arch = settings.own, settings.arch
    hidden, heads = int(own("embedding_length")), int(own("attention.head_count"))
    head_size = int(own("attention.key_length", hidden // heads))
    turned = int(own("rope.dimension_count", head_size))
    if (int(own("attention.value_length", head_size)), turned) != (head_size, head_size):
        raise Broken("The GGUF gives its heads sizes that llama.cpp cannot compute with. The export was deleted.")
    values: dict[str, Any] = {
        "vocab_size": len(settings.value("tokenizer.ggml.tokens", ())),
        "hidden_size": hidden,
        "intermediate_size": int(own("feed_forward_length")),
        "num_hidden_layers": int(own("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(own("attention.head_count_kv", heads)),
        "head_dim": head_size,
        "rms_norm_eps": float(own("attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": int(own("context_length")),
        "tie_word_embeddings": "output.weight" not in settings.tensors,
        "rope_parameters": _rope(settings),
    }
    if arch == MODEL_ARCH.LLAMA:
        values["attention_bias"] = "blk.0.attn_q.bias" in settings.tensors
    if arch in WINDOWED:
        values |= _windows(settings, values)
    if arch == MODEL_ARCH.GEMMA2:
        values["attn_logit_softcapping"] = float(own("attn_logit_softcapping", 50.0))
        values["final_logit_softcapping"] = float(own("final_logit_softcapping", 30.0))
    return AutoConfig.for_model(KINDS[arch], **values)


def _rope(settings: GgufSettings) -> dict[str, Any]:
    base = float(settings.own("rope.freq_base", _USUAL_BASE))
    full: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    kind = settings.own("rope.scaling.type", "none")
    if kind in ("linear", "yarn"):
        full |= {"rope_type": kind, "factor": float(settings.own("rope.scaling.factor"))}
    if kind == "yarn":
        longest = settings.own("context_length")
        full["original_max_position_embeddings"] = int(settings.own("rope.scaling.original_context_length", longest))
    if settings.arch != MODEL_ARCH.GEMMA3:
        return full
    local = {"rope_type": "default", "rope_theta": float(settings.own("rope.freq_base_swa", _USUAL_BASE))}
    return {"full_attention": full, "sliding_attention": local}


def _windows(settings: GgufSettings, values: dict[str, Any]) -> dict[str, Any]:
    period = int(settings.own("attention.sliding_window_pattern", PERIODS[settings.arch]))
    layers = values["num_hidden_layers"]
    kinds = ["full_attention" if (n + 1) % period == 0 else "sliding_attention" for n in range(layers)]
    sizes = (layers, values["hidden_size"], values["num_attention_heads"], values["head_dim"])
    return {
        "sliding_window": int(settings.own("attention.sliding_window", 4096)),
        "layer_types": kinds,
        "query_pre_attn_scalar": attention_divisor(settings.arch, *sizes),
    }
