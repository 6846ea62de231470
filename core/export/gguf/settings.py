"""What a GGUF tells llama.cpp of a model beside its tensors, and which settings no file can tell it.

Sources: src/models and src/llama-model.cpp of llama.cpp, which say what it reads for each architecture and what it
takes for granted. A setting that changes what is computed is either written here, or refused where it is not as
llama.cpp's.
"""

import math
from typing import Any

from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType

from core.export.shared.destination import ExportError

INSTEAD = "Export the merged model or the adapter instead."
GEMMAS = (MODEL_ARCH.GEMMA, MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3)
WINDOWED = (MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3)
# By this many layers llama.cpp knows the models that divide queries by the root of hidden size over heads.
LARGEST = {MODEL_ARCH.GEMMA2: 46, MODEL_ARCH.GEMMA3: 62}
# ggml's GELU is the tanh form; the exact one differs from it by less than bf16 rounds.
_GELU = ("gelu_pytorch_tanh", "gelu")
_YARN_FAST, _YARN_SLOW = 32.0, 1.0


def rope_of(config: Any, layers: str = "full_attention") -> dict[str, Any]:
    """The rotary settings of layers with full attention, or with a window: `sliding_attention`."""
    settings = dict(config.rope_parameters or {})
    return dict(settings.get(layers, settings))


def write_settings(writer: GGUFWriter, arch: MODEL_ARCH, config: Any, context: int, head_size: int) -> None:
    """Everything that `arch` is told of a model with transformers' `config`, beside its tensors."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = rope_of(config)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    _write_rope_scaling(writer, rope, config)
    if arch in WINDOWED:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(_period(config))
        writer.add_rope_freq_base_swa(float(rope_of(config, "sliding_attention").get("rope_theta", 10_000.0)))
    if arch == MODEL_ARCH.GEMMA2:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _write_rope_scaling(writer: GGUFWriter, rope: dict[str, Any], config: Any) -> None:
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(int(original))


def _period(config: Any) -> int:
    """Every how many layers one has no window. Raises ExportError where that is not the last of each so many."""
    kinds = config.layer_types
    full = [number for number, kind in enumerate(kinds) if kind == "full_attention"]
    period = full[0] + 1 if full else len(kinds) + 1
    if full != list(range(period - 1, len(kinds), period)):
        raise ExportError(f"This model's sliding-window layers cannot be described to llama.cpp. {INSTEAD}")
    return period


def refuse_settings(arch: MODEL_ARCH, config: Any, head_size: int) -> None:
    """Raise ExportError for what llama.cpp computes otherwise for `arch`, and cannot be told."""
    for is_otherwise, what in _otherwise(arch, config, head_size):
        if is_otherwise:
            raise ExportError(f"This {config.model_type} model {what}. {INSTEAD}")
    if arch in WINDOWED:
        _period(config)


def _otherwise(arch: MODEL_ARCH, config: Any, head_size: int) -> list[tuple[bool, str]]:
    activation = getattr(config, "hidden_act", None) or config.hidden_activation
    known = _GELU if arch in GEMMAS else ("silu",)
    return [
        (activation not in known, f"computes with {activation}, where llama.cpp computes with {known[0]}"),
        (
            arch not in (MODEL_ARCH.LLAMA, MODEL_ARCH.QWEN2) and bool(getattr(config, "attention_bias", False)),
            "has biases in its attention, for which llama.cpp has no place",
        ),
        (bool(getattr(config, "mlp_bias", False)), "has biases in its MLP, which are not written here"),
        (
            arch in GEMMAS and not config.tie_word_embeddings,
            "has a head of its own, where llama.cpp takes the embeddings",
        ),
        (
            bool(getattr(config, "use_bidirectional_attention", None)),
            "looks ahead in its prompts, which llama.cpp does not",
        ),
        *_of_gemma(arch, config, head_size),
        *_of_rope(arch, config),
    ]


def _of_gemma(arch: MODEL_ARCH, config: Any, head_size: int) -> list[tuple[bool, str]]:
    if arch not in WINDOWED:
        return []
    is_largest = config.num_hidden_layers == LARGEST.get(arch)
    divisor = config.hidden_size // config.num_attention_heads if is_largest else head_size
    caps = (config.attn_logit_softcapping, config.final_logit_softcapping)
    wants_caps = arch == MODEL_ARCH.GEMMA2
    return [
        (config.query_pre_attn_scalar != divisor, "scales its attention as llama.cpp does not"),
        (
            any(bool(cap) != wants_caps for cap in caps),
            "does not cap its logits, as llama.cpp does" if wants_caps else "caps its logits, as llama.cpp does not",
        ),
        (
            not config.sliding_window or "sliding_attention" not in config.layer_types,
            "has no windows, where llama.cpp has them",
        ),
    ]


def _of_rope(arch: MODEL_ARCH, config: Any) -> list[tuple[bool, str]]:
    rope, local = rope_of(config), rope_of(config, "sliding_attention")
    kind = rope.get("rope_type", "default")
    fitting = {"default", "linear"}
    fitting |= {"llama3"} if arch == MODEL_ARCH.LLAMA else set()
    fitting |= {"yarn"} if arch not in GEMMAS else set()
    local_fits = {"default"} if arch == MODEL_ARCH.GEMMA3 else {kind}
    partial = (float(each.get("partial_rotary_factor", 1.0)) != 1.0 for each in (rope, local))
    return [
        (kind not in fitting, f"stretches its positions by {kind!r}, which llama.cpp does not for it"),
        (local.get("rope_type", "default") not in local_fits, "stretches positions within its windows"),
        (any(partial), "turns a part of each head only, where llama.cpp turns all of it"),
        (kind == "yarn" and not _is_plain_yarn(rope), "stretches its positions by a YaRN of its own numbers"),
    ]


def _is_plain_yarn(rope: dict[str, Any]) -> bool:
    """Whether its numbers are those that llama.cpp takes (YaRN, arXiv 2309.00071, where they are not given)."""
    attention = rope.get("attention_factor")
    usual = 0.1 * math.log(float(rope["factor"])) + 1
    return (
        (attention is None or math.isclose(float(attention), usual, rel_tol=1e-6))
        and float(rope.get("beta_fast") or _YARN_FAST) == _YARN_FAST
        and float(rope.get("beta_slow") or _YARN_SLOW) == _YARN_SLOW
        and not rope.get("mscale")
        and not rope.get("mscale_all_dim")
        and rope.get("truncate", True)
    )
