"""Loads the fused experts of mixtures in four bits too, besides the linear layers that transformers chooses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes.nn import Params4bit
from transformers.integrations.bitsandbytes import Bnb4bitQuantize
from transformers.quantizers import auto
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name, should_convert_module

from core.model.moe import experts_of, fused_weights


class Quantiser(Bnb4BitHfQuantizer):
    """transformers' quantiser of bitsandbytes' four bits, for fused experts too."""

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Whether this parameter is quantised as it is loaded."""
        if super().param_needs_quantization(model, param_name, **kwargs):
            return True
        module, name = get_module_from_name(model, param_name)
        return isinstance(getattr(module, name, None), Params4bit)

    def get_quantize_ops(self) -> Any:
        """What quantises one loaded tensor."""
        return _Quantise(self)

    def _process_model_before_weight_loading(self, model: Any, device_map: Any, **kwargs: Any) -> None:
        super()._process_model_before_weight_loading(model, device_map, **kwargs)
        if self.pre_quantized:
            return
        chosen = self.quantization_config
        for name, module in experts_of(model):
            if not should_convert_module(name, self.modules_to_not_convert):
                continue
            for weight in fused_weights(module):
                empty = Params4bit(
                    getattr(module, weight).data,
                    requires_grad=False,
                    compress_statistics=chosen.bnb_4bit_use_double_quant,
                    quant_type=chosen.bnb_4bit_quant_type,
                    quant_storage=chosen.bnb_4bit_quant_storage,
                )
                setattr(module, weight, empty)


class _Quantise(Bnb4bitQuantize):
    def convert(self, input_dict: dict[str, Any], model: Any = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        experts: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for name, value in input_dict.items():
            module, _ = get_module_from_name(model, name)
            (others if hasattr(module, "source_cls") else experts)[name] = value
        made = super().convert(others, model=model, **kwargs) if others else {}
        for name, value in experts.items():
            loaded = value[0] if isinstance(value, list) else value
            empty = model.get_parameter_or_buffer(name)
            made[name] = Params4bit(loaded, requires_grad=False, **empty.__dict__).to(loaded.device)
        return made


def install() -> None:
    """Have transformers load four bits with this quantiser."""
    auto.AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] = Quantiser


@contextmanager
def theirs() -> Iterator[None]:
    """Inside, transformers uses its own quantiser, which leaves experts in 16 bits."""
    auto.AUTO_QUANTIZER_MAPPING["bitsandbytes_4bit"] = Bnb4BitHfQuantizer
    try:
        yield
    finally:
        install()
