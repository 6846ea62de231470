"""Initialisations of an adapter other than the default: PiSSA, LoftQ, and the weights of a trained adapter.

None changes the base, so that the saved adapter is a plain LoRA over the plain base: it answers the same in the chat,
after a resume, and in other programs.

- PiSSA (arXiv 2404.02948) trains the base's leading singular directions over a base without them, W - B0 A0. Here the
  base keeps them and the adapter subtracts them: s (B A - B0 A0), two halves of one LoRA of twice the rank, the second
  of which is frozen. That is PiSSA's own function and gradient; at first it adds nothing. On a quantised
  base the directions are those of the quantised weights. PiSSA's authors quantise W - B0 A0 anew, which rounds less;
  but such an adapter would fit no other copy of the base.
- LoftQ (arXiv 2310.08659), one step of it: the adapter starts as the best approximation of W - quantised(W), so that
  training starts from nearer the original model.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from safetensors import SafetensorError, safe_open
from transformers.pytorch_utils import Conv1D

from core.basemodel.find import find_model
from core.errors import ModelError
from core.model.stream.stream import holding
from core.text.library_errors import telling_line
from core.untrusted.adapter_files import refuse_adapter_files

ADAPTER = "default"
# Passes of the randomised decomposition (Halko et al., arXiv 0909.4061), as many as PEFT's own fast PiSSA suggests.
PASSES = 16


def lora_layers(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have an adapter, by the names of what they wrap in the base."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix("base_model.model."), module


def start_pissa(model: torch.nn.Module, rank: int) -> None:
    """PiSSA of `rank`, in fresh adapters of twice the rank. Raises ModelError where a layer is smaller than `rank`.

    On meta tensors only the second half is frozen: there is nothing to decompose.
    """
    for name, layer in lora_layers(model):
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        smallest = min(a.shape[1], b.shape[0])
        if rank > smallest:
            raise ModelError(
                f"lora.rank {rank} is too high for lora.init pissa: {name} has {smallest} directions. "
                f"Allowed here: 1 to {smallest}."
            )
        if not a.is_meta:
            with holding(model, layer):
                first_a, first_b = split(weight_of(layer.get_base_layer()), rank, layer.scaling[ADAPTER])
            a.data = torch.cat([first_a, first_a])
            b.data = torch.cat([first_b, -first_b], dim=1)
        a.register_hook(_only_the_first(rank, 0))
        b.register_hook(_only_the_first(rank, 1))


def _only_the_first(rank: int, dim: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A hook that keeps the gradient of the first `rank` rows (dim 0) or columns (dim 1) and zeroes the rest."""

    def masked(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient.narrow(dim, rank, rank).zero_()
        return gradient

    return masked


def start_loftq(model: Any) -> None:
    """LoftQ: decompose each layer's quantisation error. Raises ModelError where the base's files lack one by name."""
    folder = find_model(model.config.name_or_path, model.config._commit_hash).folder
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    places = {key: file for file in files for key in _keys(file)}
    prefix = f"{model.get_base_model().base_model_prefix}."
    for name, layer in lora_layers(model):
        base = layer.get_base_layer()
        if not isinstance(base, Linear4bit):  # not quantised, so nothing was lost
            continue
        key = next((key for key in (f"{name}.weight", f"{name.removeprefix(prefix)}.weight") if key in places), None)
        if key is None:
            raise ModelError(
                f"lora.init loftq needs the original weights of {name}, which this model's files store under another "
                f"name. Set lora.init to default."
            )
        with safe_open(places[key], framework="pt") as opened:
            original = opened.get_tensor(key)
        with holding(model, layer):
            kept = weight_of(base)
        original = (original.t() if base.source_cls is Conv1D else original).to(kept)
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        a.data, b.data = split(original - kept, a.shape[0], layer.scaling[ADAPTER])


def start_from_adapter(model: Any, folder: Path) -> None:
    """Start from the adapter that is saved in `folder`. Raises ModelError where its shapes are not this model's."""
    try:
        odd = put_weights(model, folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The adapter that this run starts from cannot be loaded: {telling_line(error)}.") from None
    if odd is not None:
        raise ModelError(f"The adapter that this run starts from does not match this base model: {odd} is missing.")


def put_weights(model: Any, folder: Path) -> str | None:
    """Give `model` the trained weights in `folder`. Returns the first name that has no match on the other side."""
    refuse_adapter_files(folder)
    found = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return next(iter([*sorted(trained & set(found.missing_keys)), *sorted(found.unexpected_keys)]), None)


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def weight_of(base: Any) -> torch.Tensor:
    """The weights (out, in) that a layer of the base computes with, dequantised, in fp32."""
    if isinstance(base, Linear4bit):
        return dequantize_4bit(base.weight.data, base.weight.quant_state).float()
    weight = base.weight.detach().float()
    if isinstance(base, Linear8bitLt):
        scales = base.weight.SCB if base.state.SCB is None else base.state.SCB  # moved there by the first forward pass
        return weight * (scales / 127)[:, None]
    return weight.t() if isinstance(base, Conv1D) else weight


def split(weight: torch.Tensor, rank: int, scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, in) and B (out, rank) with scaling · B A the best approximation of `weight` (out, in) of that rank.

    Where the matrix has fewer directions than `rank`, the rest of A and B is zero.
    """
    directions = min(rank, *weight.shape)
    # torch takes a few more directions than wanted as room for the error of the randomised ones.
    room = min(directions + 8, *weight.shape)
    left, values, right = torch.svd_lowrank(weight, q=room, niter=PASSES)
    root = values[:directions].clamp(min=0).div(scaling).sqrt()
    a = weight.new_zeros(rank, weight.shape[1])
    b = weight.new_zeros(weight.shape[0], rank)
    a[:directions] = root[:, None] * right[:, :directions].t()
    b[:, :directions] = left[:, :directions] * root
    return a, b


def alpha_for_twice_the_rank(alpha: float, rank_stabilised: bool) -> float:
    """The alpha that scales an adapter of twice the rank as `alpha` scales one of the rank."""
    return alpha * (math.sqrt(2) if rank_stabilised else 2)
