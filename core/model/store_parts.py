"""A parameter's tensors taken apart for a store, and put together again, as bitsandbytes 0.50.2 holds them.

A parameter in 4 bits is a `Params4bit` (nn/modules.py) with a `QuantState` (functional.py): packed numbers, their
absolute maxima and the code; with double quantisation the maxima are numbers in 8 bits themselves, with an offset, and
have maxima and a code of their own. One in 8 bits is an `Int8Params`: numbers and the maximum of each row, `SCB`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Int8Params, Linear4bit, Params4bit

from core.basemodel.store_index import StoreError

Parts = dict[str, torch.Tensor]


def taken_apart(parameter: torch.Tensor) -> tuple[dict[str, Any], Parts]:
    """What is not a tensor of `parameter`, as JSON, and its tensors by part. Raises StoreError for an unknown kind."""
    if isinstance(parameter, Params4bit):
        return _four_bits(parameter)
    if isinstance(parameter, Int8Params):
        if parameter.data.dtype != torch.int8 or parameter.SCB is None:
            raise StoreError("A layer in 8 bits was not quantised.")
        return {"kind": "8bit"}, {"data": parameter.data, "scb": parameter.SCB}
    return {"kind": "plain"}, {"plain": parameter.data}


def _four_bits(parameter: Params4bit) -> tuple[dict[str, Any], Parts]:
    state, inner = parameter.quant_state, getattr(parameter.quant_state, "state2", None)
    if state is None or (inner is not None and (inner.nested or inner.offset is not None or inner.shape is not None)):
        raise StoreError("A layer in 4 bits is quantised in a way that is not known.")
    parts = {"data": parameter.data, "absmax": state.absmax, "code": state.code}
    about: dict[str, Any] = {"kind": "4bit", **_settings(state), "shape": list(state.shape), "nested": None}
    if inner is not None:
        about["nested"] = _settings(inner)
        parts |= {"offset": state.offset, "nested_absmax": inner.absmax, "nested_code": inner.code}
    return about, parts


def _settings(state: QuantState) -> dict[str, Any]:
    return {"dtype": name_of(state.dtype), "blocksize": state.blocksize, "quant_type": state.quant_type}


def put_together(empty: torch.Tensor, about: Mapping[str, Any], parts: Parts) -> torch.Tensor:
    """The parameter again, in the place of `empty`: the parameter without numbers that transformers has made there.

    As transformers makes it (integrations/bitsandbytes.py, `Bnb4bitQuantize` and `Bnb8bitQuantize`): what `empty` knows
    of itself is kept.
    """
    if about["kind"] == "4bit":
        return _from_four_bits(empty, about, parts)
    if about["kind"] == "8bit":
        known = {name: value for name, value in vars(empty).items() if name not in ("CB", "SCB")}
        return Int8Params(parts["data"], requires_grad=False, CB=parts["data"], SCB=parts["scb"], **known)
    data = parts["plain"]
    return torch.nn.Parameter(data, requires_grad=data.is_floating_point())


def _from_four_bits(empty: torch.Tensor, about: Mapping[str, Any], parts: Parts) -> Params4bit:
    inner = about["nested"]
    nested = None
    if inner is not None:
        nested = QuantState(absmax=parts["nested_absmax"], code=parts["nested_code"], **_read(inner))
    state = QuantState(
        absmax=parts["absmax"],
        shape=torch.Size(about["shape"]),
        code=parts["code"],
        offset=parts.get("offset"),
        state2=nested,
        **_read(about),
    )
    known = {**vars(empty), "quant_state": state, "bnb_quantized": True}
    made = Params4bit(parts["data"], requires_grad=False, **known)
    if isinstance(made.module, Linear4bit):
        made.module.quant_state = state
    return made


def _read(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = ("blocksize", "quant_type")
    return {"dtype": dtype_of(settings["dtype"]), **{name: settings[name] for name in names}}


def name_of(dtype: torch.dtype) -> str:
    """torch's name for it, without the prefix."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of that name."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def in_order(tensor: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...] | None]:
    """Its numbers as they lie in memory, as bytes on the CPU, and its strides where these are not the usual ones.

    A tensor with gaps, a view of a larger one, is stored without them.
    """
    strides = None if tensor.is_contiguous() or not _is_dense(tensor) else tuple(tensor.stride())
    if strides is None:
        flat = tensor.detach().contiguous().reshape(-1)
    else:
        flat = torch.as_strided(tensor.detach(), (tensor.numel(),), (1,))
    return flat.cpu().view(torch.uint8), strides


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether its numbers lie one beside the other, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def as_tensor(data: torch.Tensor, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> torch.Tensor:
    """Bytes as the tensor that `in_order` made them of."""
    flat = data.view(dtype_of(dtype))
    return flat.view(shape) if strides is None else flat.as_strided(shape, strides)
