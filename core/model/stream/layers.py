"""The layers of a model that can be streamed: their frozen weights, and where each lies in its layer's block.

A block is what is brought to the device in one go: the packed weights of a layer with their scales. Small tensors stay
where they are: norms, biases, buffers, the tables of quantisation; so does what several layers share.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn import Linear8bitLt, Params4bit
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from transformers.modeling_layers import GradientCheckpointingLayer

from core.errors import ModelError

# A piece begins where torch's CUDA allocator would let a tensor begin, a block where a file may be read past the page
# cache.
PIECE_GRAIN = 512
BLOCK_GRAIN = 4096


@dataclass(frozen=True)
class Piece:
    """A tensor's place in a block: `at` in bytes from its beginning. `part` is 'data', 'absmax', 'scb' and so on."""

    parameter: str
    part: str
    at: int
    dtype: torch.dtype
    shape: torch.Size

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.shape.numel() * self.dtype.itemsize

    def of(self, block: torch.Tensor) -> torch.Tensor:
        """The tensor, as a view of `block` (bytes,)."""
        return block[self.at : self.at + self.bytes].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Block:
    """The pieces of a layer, in their order, and the size of the whole."""

    pieces: tuple[Piece, ...]
    bytes: int


@dataclass(frozen=True)
class Held:
    """A frozen tensor of a layer: the objects that have it, each with the attribute's name."""

    parameter: str
    part: str
    holders: tuple[tuple[Any, str], ...]

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor as it is now."""
        holder, attribute = self.holders[0]
        found: torch.Tensor = getattr(holder, attribute).detach()
        return found

    def put(self, tensor: torch.Tensor) -> None:
        """Have all holders use `tensor` instead."""
        for holder, attribute in self.holders:
            setattr(holder, attribute, tensor)


@dataclass(frozen=True)
class Layer:
    """A layer that can be streamed."""

    name: str
    module: torch.nn.Module
    held: tuple[Held, ...]
    block: Block

    def bind(self, block: torch.Tensor) -> None:
        """Have the layer compute with what lies in `block` (bytes,), now and whenever its contents change."""
        for held, piece in zip(self.held, self.block.pieces, strict=True):
            held.put(piece.of(block))

    def release(self) -> None:
        """Let go of the layer's tensors: until it is bound it cannot compute."""
        for held in self.held:
            held.put(held.tensor.new_empty(0))


def streamable(model: torch.nn.Module) -> list[Layer]:
    """The layers of `model` with frozen weights of their own, in their order. Empty where it has none.

    A layer is what transformers checkpoints, the outermost where one lies in another (5.23, modeling_layers.py,
    `GradientCheckpointingLayer`). Works on meta tensors too.
    """
    layers = dict(_outermost(model))
    shared = _shared(model, list(layers.values()))
    found = []
    for name, module in layers.items():
        held = tuple(_held(name, module, shared))
        if held:
            found.append(Layer(name, module, held, block_of(held)))
    return found


def block_of(held: Iterable[Held]) -> Block:
    """The block that takes these tensors, one after the other."""
    pieces, at = [], 0
    for each in held:
        tensor = each.tensor
        pieces.append(Piece(each.parameter, each.part, at, tensor.dtype, tensor.shape))
        at += _rounded(tensor.nbytes, PIECE_GRAIN)
    return Block(tuple(pieces), _rounded(at, BLOCK_GRAIN))


def refuse_unstreamable(model: torch.nn.Module) -> None:
    """Raise ModelError where the layers of `model` (PEFT's, or a base) cannot be streamed, with the reason."""
    layers = streamable(model)
    if not layers:
        raise ModelError("The layers of this model cannot be streamed: it has none that are checkpointed one by one.")
    inside = [each for layer in layers for each in layer.module.modules()]
    if any(isinstance(each, LoraLayer) and any(each.use_dora.values()) for each in inside):
        raise ModelError("lora.dora reads the weights of every layer at the start, so layers cannot be streamed.")
    if any(isinstance(each, ModulesToSaveWrapper) for each in inside):
        raise ModelError("lora.extra_modules names a module of a layer, and layers with such cannot be streamed.")


def _outermost(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    inside: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in inside:
            inside |= {id(each) for each in module.modules()}
            yield name, module


def _shared(model: torch.nn.Module, layers: list[torch.nn.Module]) -> set[int]:
    """The parameters, by id, that are at two places of the model, or in two of its layers."""
    places = Counter(id(each) for module in model.modules() for each in module._parameters.values())
    owners = Counter(number for layer in layers for number in {id(each) for each in layer.parameters()})
    return {number for counted in (places, owners) for number, times in counted.items() if times > 1}


def _held(layer: str, module: torch.nn.Module, shared: set[int]) -> Iterator[Held]:
    for name, owner in module.named_modules(prefix=layer):
        for key, parameter in owner._parameters.items():
            if parameter is not None and not parameter.requires_grad and id(parameter) not in shared:
                yield from _parts(_name_in_base(f"{name}.{key}"), owner, parameter)


def _parts(name: str, owner: torch.nn.Module, parameter: torch.nn.Parameter) -> Iterator[Held]:
    """The large tensors that stand for one parameter: in four bits, in eight, or as it is."""
    if isinstance(parameter, Params4bit) and parameter.bnb_quantized:
        state = parameter.quant_state
        yield Held(name, "data", ((parameter, "data"),))
        yield Held(name, "absmax", ((state, "absmax"),))
        if state.nested:
            yield Held(name, "nested_absmax", ((state.state2, "absmax"),))
    elif isinstance(owner, Linear8bitLt) and parameter is owner.weight:
        if owner.weight.CB is not None:  # as the first forward pass does (bitsandbytes 0.50.2, `Linear8bitLt.forward`)
            owner.init_8bit_state()
        yield Held(name, "data", ((owner.state, "CB"), (parameter, "data")))
        yield Held(name, "scb", ((owner.state, "SCB"),))
    elif parameter.ndim > 1 and parameter.is_contiguous():
        yield Held(name, "plain", ((parameter, "data"),))


def _name_in_base(name: str) -> str:
    """The parameter's name in the base, whatever PEFT has put around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _rounded(size: int, grain: int) -> int:
    return -(-size // grain) * grain
