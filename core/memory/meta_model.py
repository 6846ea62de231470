"""The model that a run would train, on meta tensors: its shapes and dtypes without its weights.

It takes the same steps as real loading: transformers' architecture and its choice of quantised layers, bitsandbytes'
quantisation (which supports meta tensors), and our adapters.
"""

from typing import Any

import torch
from bitsandbytes.functional import create_dynamic_map, name2qmap, quantize_4bit
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

from core.model.load import attach_lora, quantization_config
from core.model.meta import outline
from core.model.moe import experts_of, fused_weights
from core.model.varlen import NAME as VARLEN
from core.model.varlen import use_varlen
from core.recipe import LoraSettings, QuantizationSettings


def meta_base(
    config: dict[str, Any], settings: QuantizationSettings, dtype: torch.dtype, attention: str = "auto"
) -> PreTrainedModel:
    """The frozen base on meta tensors, in its bits. Raises ModelError where its architecture cannot be built."""
    # FlashAttention need not be installed to be planned for: the trace computes attention as it does where it can.
    model = outline(config, dtype, attention if attention in ("sdpa", "eager") else None)
    use_varlen(model, attention == VARLEN)
    quantization = quantization_config(settings, dtype)
    if quantization is not None:
        quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
        quantizer.preprocess_model(model=model, dtype=dtype, device_map={"": "meta"})
        quantizer.postprocess_model(model)
        for module in model.modules():
            if isinstance(module, Linear4bit):
                module.weight = _quantised(module.weight, dtype)
            elif isinstance(module, Linear8bitLt):
                _quantise_to_8_bits(module)
            if isinstance(module, (Linear4bit, Linear8bitLt)) and module.bias is not None:
                module.bias.data = module.bias.data.to(dtype)  # as loading leaves it
        for _, experts in experts_of(model):
            for name in fused_weights(experts):
                if isinstance(getattr(experts, name), Params4bit):
                    setattr(experts, name, _quantised(getattr(experts, name), dtype))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def meta_model(
    config: dict[str, Any],
    quantization: QuantizationSettings,
    lora: LoraSettings,
    dtype: torch.dtype,
    adapters_in: torch.dtype,
    attention: str = "auto",
) -> PeftModel:
    """The base with fresh adapters. Raises ModelError."""
    base = meta_base(config, quantization, dtype, attention)
    with torch.device("meta"):  # DoRA copies layers, and bitsandbytes makes a copy on the device of the moment
        return attach_lora(base, lora, adapters_in)


def _quantised(weight: Params4bit, dtype: torch.dtype) -> Params4bit:
    # bitsandbytes keeps the first code that it makes for the whole process: make sure that it is not one on meta.
    name2qmap.setdefault("dynamic", create_dynamic_map())
    how = {name: getattr(weight, name) for name in ("blocksize", "compress_statistics", "quant_type", "quant_storage")}
    data, state = quantize_4bit(weight.data.to(dtype), **how)
    return Params4bit(data, requires_grad=False, quant_state=state, bnb_quantized=True, **how)


def _quantise_to_8_bits(layer: Linear8bitLt) -> None:
    """LLM.int8() without its outliers: there are few, and how many depends on the values, which are not here."""
    codes = torch.empty(layer.weight.shape, dtype=torch.int8, device="meta")
    scales = torch.empty(layer.weight.shape[0], device="meta")
    layer.weight = Int8Params(codes, requires_grad=False, CB=codes, SCB=scales)
    layer.state.threshold = 0.0
