"""Tiny random models that read pictures or sound as well as text, as transformers builds them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

_TEXT = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
_TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512}
_TEXT |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
_EYE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_EYE |= {"image_size": 28, "patch_size": 14}
_QWEN_EYE = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


def _text(**more: Any) -> dict[str, Any]:
    return {**_TEXT, **more}


CONFIGS: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": _text(model_type="gemma3_text", sliding_window=16),
        "vision_config": {**_EYE, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
    },
    "gemma4": {
        "text_config": _text(
            model_type="gemma4_text", hidden_size_per_layer_input=0, sliding_window=16, global_head_dim=16
        ),
        "vision_config": {**_EYE, "model_type": "gemma4_vision"},
        "audio_config": None,
    },
    "llama4": {
        "text_config": _text(
            model_type="llama4_text", intermediate_size_mlp=128, num_local_experts=2, interleave_moe_layer_step=2
        ),
        "vision_config": {**_EYE, "model_type": "llama4_vision_model"},
    },
    "mllama": {
        "text_config": _text(model_type="mllama_text_model", num_hidden_layers=3, cross_attention_layers=[1]),
        "vision_config": {
            "model_type": "mllama_vision_model",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_global_layers": 1,
            "attention_heads": 2,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
        },
    },
    "qwen3_5": {
        "text_config": _text(
            model_type="qwen3_5_text",
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            layer_types=["linear_attention", "full_attention"],
        ),
        "vision_config": _QWEN_EYE,
    },
    "fuyu": {"text_config": _text(model_type="persimmon"), **_TEXT, "image_size": 28, "patch_size": 14},
    "mistral3": {
        "text_config": _text(model_type="mistral"),
        "vision_config": {**_EYE, "model_type": "pixtral"},
    },
    "qwen2_5_vl": {
        "text_config": _text(model_type="qwen2_5_vl_text", rope_parameters=_MROPE),
        "vision_config": {**_QWEN_EYE, "fullatt_block_indexes": [0]},
    },
    "llava": {
        "text_config": _text(model_type="llama"),
        "vision_config": {**_EYE, "model_type": "clip_vision_model"},
    },
}


def tiny_of_pictures(kind: str, auto: Any = AutoModelForCausalLM) -> PreTrainedModel:
    """A random model of `kind`, in fp32: the one that `auto` opens, or the whole with its tower where it opens none."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **CONFIGS[kind])
    has = type(config) in auto._model_mapping
    model: PreTrainedModel = (auto if has else AutoModelForImageTextToText).from_config(config)
    return model
