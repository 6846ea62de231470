"""A model's architecture on meta tensors, from its config alone: every name, shape and dtype, and no number."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from core.errors import ModelError
from core.model.moe import NAME as OUR_EXPERTS
from core.text.library_errors import telling_line


def outline(config: dict[str, Any], dtype: torch.dtype, attention: str | None = None) -> PreTrainedModel:
    """The model of `config` as loading would build it, unquantised. `attention` None is transformers' default.

    Raises ModelError where its architecture cannot be built: then it could not be loaded either.
    """
    plain = without_pad_beyond(config)
    values = {key: value for key, value in plain.items() if key not in ("quantization_config", "auto_map")}
    kind = config.get("model_type", "no model_type")
    try:
        known = AutoConfig.for_model(**values)
        with torch.device("meta"), no_init_weights():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                known, dtype=dtype, attn_implementation=attention, experts_implementation=OUR_EXPERTS
            )
        model.tie_weights()
    except Exception as error:  # whatever an architecture's own code says to a config that it cannot use
        reason = telling_line(error)
        if reason.startswith("Unrecognized configuration class"):
            raise ModelError(
                f"Models of the type {kind!r} cannot be trained here: the installed transformers has no text-only "
                f"language model of that type. Choose another model."
            ) from None
        raise ModelError(
            f"A model of the type {kind!r} cannot be built from its config.json, so it cannot be loaded: {reason}."
        ) from None
    return model


def without_pad_beyond(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` without a padding token beyond the vocabulary: transformers could not build the embeddings."""
    rows, pad = config.get("vocab_size"), config.get("pad_token_id")
    odd = isinstance(rows, int) and isinstance(pad, int) and pad >= rows
    return {key: value for key, value in config.items() if not (odd and key == "pad_token_id")}
