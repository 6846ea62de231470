"""Streams the frozen layers of a model: each lies elsewhere, and visits the device when it computes.

Two hooks on each layer do it, and both stay outside of transformers' checkpoint (5.23, modeling_layers.py). Before its
forward pass a layer is brought. When the gradient of its output is there it is brought again: autograd comes to that
before anything of the layer's own backward pass, recomputation included. A hook inside the checkpoint would be too late
where a layer's backward pass begins with a product that needs nothing recomputed, such as one in four bits without an
adapter.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from core.model.stream.layers import Layer, refuse_unstreamable, streamable
from core.model.stream.ring import Ring
from core.model.stream.source import Source, now

SLOTS = 2
FORWARDS, BACKWARDS = 1, -1
# Where the base of a streamed model has its stream.
_NAME = "layer_stream"


class LayerStream:
    """The layers of a model, of which some are streamed. All lie on `device` until `settle` says otherwise."""

    def __init__(self, layers: Sequence[Layer], source: Source, device: torch.device, slots: int = SLOTS) -> None:
        self.layers, self.source = layers, source
        self.streamed: frozenset[int] = frozenset()
        self._device, self._slots = device, slots
        self._ring: Ring | None = None
        self._places: dict[int, int] = {}  # by the layer's number: which of the streamed it is
        self._hooks: list[Any] = []

    def settle(self, streamed: int | Collection[int]) -> None:
        """Stream these layers, or so many spread evenly, and have all others lie on the device. Not within a pass."""
        many = len(self.layers)
        wanted = spread(many, min(streamed, many)) if isinstance(streamed, int) else frozenset(streamed)
        self._drop_ring()
        for number in sorted(wanted - self.streamed):
            layer = self.layers[number]
            self.source.keep(number, layer.block, [each.tensor for each in layer.held])
            layer.release()
        returning, self.streamed = self.streamed - wanted, wanted
        self._ring = self._fresh_ring()
        for number in sorted(returning):
            self._bring_back(number)

    def install_hooks(self) -> None:
        """Have every layer that is streamed brought before it computes. Once a model, before or after `settle`."""
        for number, layer in enumerate(self.layers):
            before = partial(self._before_forward, number)
            after = partial(self._after_forward, number)
            self._hooks.append(layer.module.register_forward_pre_hook(before, prepend=True))
            self._hooks.append(layer.module.register_forward_hook(after, with_kwargs=True))

    @contextmanager
    def holding(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside, the weights of `module`, which may be of a streamed layer, can be read."""
        inside = [number for number in self.streamed if module in set(self.layers[number].module.modules())]
        for number in inside:
            self._have(number)
        yield

    def close(self) -> None:
        """Take the hooks away, and let go of slots and source. Streamed layers cannot compute any more."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._drop_ring()
        self.source.close()

    @property
    def bytes_moved(self) -> int:
        """What has come to the slots since the last `settle`."""
        return self._ring.bytes_moved if self._ring is not None else 0

    @property
    def seconds_waiting(self) -> float:
        """How long computing has waited for what came, since the last `settle`."""
        return self._ring.seconds_waiting if self._ring is not None else 0.0

    def _drop_ring(self) -> None:
        """Free the slots: nothing may be on its way to them, nor look at them."""
        if self._ring is not None:
            self._ring.close()
        for number in self.streamed:
            self.layers[number].release()
        self._ring = None

    def _fresh_ring(self) -> Ring | None:
        numbers = sorted(self.streamed)
        self._places = {number: place for place, number in enumerate(numbers)}
        if not numbers:
            return None
        ring = Ring(
            self.source, numbers, [self.layers[each].block.bytes for each in numbers], self._slots, self._device
        )
        for number, place in self._places.items():
            self.layers[number].bind(ring.block(place))
        return ring

    def _bring_back(self, number: int) -> None:
        layer = self.layers[number]
        block = torch.empty(layer.block.bytes, dtype=torch.uint8, device=self._device)
        self.source.bring(number, block, now(self._device)).wait()
        layer.bind(block)
        self.source.forget(number)

    def _before_forward(self, number: int, *_: Any) -> None:
        if number in self.streamed:
            # The last layers stay for the backward pass; without one the next pass begins with the first.
            self._have(number, FORWARDS, around=not torch.is_grad_enabled())

    def _after_forward(self, number: int, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if number not in self.streamed or not torch.is_grad_enabled():
            return
        given = {id(each) for each in tree_leaves((args, kwargs))}  # a layer that was skipped gives it back
        made = (each for each in tree_leaves(output) if torch.is_tensor(each) and id(each) not in given)
        first = next((each for each in made if each.requires_grad), None)
        if first is not None:
            first.register_hook(lambda _: self._have(number, BACKWARDS))

    def _have(self, number: int, step: int = 0, around: bool = False) -> None:
        """Have a layer's block in its slot, and those that come next on their way to theirs."""
        assert self._ring is not None
        place = self._places[number]
        self._ring.have(place)
        self._ring.wait(place)
        for then in self._ring.after(place, step, around) if step else ():
            self._ring.have(then)


def spread(layers: int, streamed: int) -> frozenset[int]:
    """Which of so many layers are streamed: so many of them, as far apart as can be."""
    return frozenset((2 * each + 1) * layers // (2 * streamed) for each in range(streamed))


def stream_layers(model: Any, source_of: Callable[[Sequence[Layer]], Source]) -> LayerStream:
    """Let the layers of `model` (PEFT's, or a base) be streamed. None is yet. Raises ModelError where they cannot be.

    `source_of` makes the place for the blocks of these layers.
    """
    refuse_unstreamable(model)
    layers = streamable(model)
    stream = LayerStream(layers, source_of(layers), layers[0].held[0].tensor.device)
    stream.install_hooks()
    setattr(_base(model), _NAME, stream)
    return stream


def stream_of(model: Any) -> LayerStream | None:
    """The stream of a model's layers; None where none has been made."""
    found: LayerStream | None = vars(_base(model)).get(_NAME)
    return found


def holding(model: Any, module: torch.nn.Module) -> AbstractContextManager[None]:
    """A context in which the weights of `module`, a part of `model`, can be read, streamed or not."""
    stream = stream_of(model)
    return nullcontext() if stream is None else stream.holding(module)


def _base(model: Any) -> torch.nn.Module:
    base: torch.nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base
