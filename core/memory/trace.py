"""One optimizer step of a run, traced on meta tensors: what it takes, to the byte, before it is run.

The model comes from meta_model.py; the loss, the fused layers and the shape of a micro-batch from the trainer's own
code. Two steps are traced, since the optimizer's states exist from the second on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit

from core.data.batches import Batch
from core.data.rendering.render import IGNORED
from core.memory.activation_offload import Offloaded
from core.memory.meta_kernels import kernels_of
from core.memory.op_cache import OpCache
from core.memory.optimizer_states import OptimizerStates
from core.memory.tensor_counter import GRAIN, Counter
from core.model.moe import experts_of, fused_weights, shape_of
from core.model.stream.layers import Layer, streamable
from core.model.stream.ring import slot_sizes
from core.model.stream.stream import SLOTS, spread
from core.model.text_reach import values_unseen
from core.step.adapter_dtype import compute_in_input_dtype
from core.step.checkpointing import checkpoint
from core.step.embedding_offload import movable_embedding
from core.step.fused_lora import Fused, fuse
from core.step.head import Head, head_of
from core.step.loss import states_of
from core.step.objective import SUPERVISED, Objective
from core.step.optimizer import Optimizer

_made = OpCache()


@dataclass(frozen=True)
class MicroBatch:
    """The shape of a micro-batch: `packs` rows of `width` tokens, `trained` tokens in all with a target.

    `packed`: as `core.data.batches.packed_batch` makes it, else padded. `plain`: each row is one conversation and
    nothing else, so that attention needs no mask.
    """

    packs: int
    width: int
    trained: int
    packed: bool = True
    plain: bool = False
    weighted: bool = False

    @classmethod
    def of(cls, batch: Batch) -> MicroBatch:
        """The shape of a micro-batch that the trainer would get."""
        ids, labels = batch["input_ids"], batch["labels"]
        packed = "position_ids" in batch
        plain = bool((batch["position_ids"].diff() == 1).all() if packed else batch["attention_mask"].all())
        packs, width = ids.shape
        return cls(packs, width, int((labels != IGNORED).sum()), packed, plain, "weights" in batch)


@dataclass(frozen=True)
class Phase:
    """A part of a step, such as the backward pass of its second micro-batch: its peak in bytes, by category."""

    name: str
    at_peak: dict[str, int]

    @property
    def peak(self) -> int:
        """The most at once, in bytes."""
        return sum(self.at_peak.values())


# The whole base on the device: while it is loaded, and until some of its layers are streamed.
LOADING, RESIDENT = "loading", "resident"


@dataclass(frozen=True)
class LayerBytes:
    """What a layer frees where it is streamed, its weights and their constants, and its block; in bytes."""

    weights: int
    constants: int
    block: int


@dataclass(frozen=True)
class Traced:
    """A step's phases in their order, on a GPU after loading; and what stays between steps, by category."""

    phases: tuple[Phase, ...]
    resting: dict[str, int]
    # Bytes of the input embeddings, where a run could keep them in ordinary memory.
    embedding: int = 0
    # The optimizer's states in managed memory, on top of the rest: torch does not count them.
    managed: int = 0
    # What the step keeps in ordinary memory instead, in bytes.
    moved: int = 0
    # The layers that can be streamed, in their order.
    layers: tuple[LayerBytes, ...] = ()
    # The largest matrix in the dtype that the model computes in, in bytes.
    largest_matrix: int = 0

    def without_embeddings(self) -> Traced:
        """The same step with the input embeddings in ordinary memory, where they go once all is loaded."""

        def less(counted: dict[str, int]) -> dict[str, int]:
            return {**counted, "weights": counted["weights"] - self.embedding}

        phases = tuple(each if each.name == LOADING else Phase(each.name, less(each.at_peak)) for each in self.phases)
        moved = self.moved + self.embedding
        return replace(self, phases=phases, resting=less(self.resting), embedding=0, moved=moved)

    def with_streamed(self, streamed: int, in_ram: bool) -> Traced:
        """The same step with so many layers streamed, which go to ordinary memory or a file once all is loaded.

        Before that the adapters have come too, and a pass has tried whether conversations can be packed.
        """
        chosen = [self.layers[number] for number in spread(len(self.layers), min(streamed, len(self.layers)))]
        slots = sum(slot_sizes([each.block for each in chosen], SLOTS))

        def less(counted: dict[str, int]) -> dict[str, int]:
            weights = counted["weights"] - sum(each.weights for each in chosen)
            constants = counted["quant_constants"] - sum(each.constants for each in chosen)
            return {**counted, "weights": weights, "quant_constants": constants, "slots": slots}

        there = {key: self.resting[key] for key in ("weights", "quant_constants", "adapters")}
        resident = {**dict.fromkeys(self.resting, 0), **there, "workspace": self.largest_matrix}
        phases = tuple(each if each.name == LOADING else Phase(each.name, less(each.at_peak)) for each in self.phases)
        phases = (Phase(RESIDENT, resident), *phases)
        moved = self.moved + (sum(each.block for each in chosen) if in_ram else 0)
        return replace(self, phases=phases, resting=less(self.resting), moved=moved)

    @property
    def highest(self) -> Phase:
        """The phase with the step's peak."""
        return max(self.phases, key=lambda phase: phase.peak)

    @property
    def peak(self) -> int:
        """The most at once, in bytes."""
        return self.highest.peak


def trace(
    model: Any,
    micro_batches: Sequence[MicroBatch],
    device_kind: str,
    optimizer: Optimizer,
    checkpointing: str,
    offload: bool = False,
    objective: Objective = SUPERVISED,
    fused: bool = True,
) -> Traced:
    """Trace two steps of `model` (PEFT's, on meta tensors) as a run on a device of `device_kind` would do them.

    `checkpointing` is 'off', 'half' or 'full'; with `offload` what is kept for the backward pass waits in ordinary
    memory; with `fused` every layer that can computes base and adapter in one pass. Gradients add up from one
    micro-batch to the next, so where the largest may come anywhere in a step, give two of its size: the second meets
    the gradients of the first. The second step is returned, as optimizer states exist from then on.
    """
    # As trl's trainer and ours prepare it.
    shared = (fuse(model, device_kind) if fused else Fused()).shared
    compute_in_input_dtype(model)
    model.train()
    checkpoint(model, checkpointing)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    states = OptimizerStates(optimizer, device_kind, model)
    layers = tuple(_layer_bytes(layer) for layer in streamable(model))
    head = head_of(model.get_base_model())
    counter, offloaded = Counter(_made), Offloaded(model) if offload else None
    with counter, kernels_of(device_kind):
        own_model(counter, model)
        if shared is not None:
            counter.own([shared.on(torch.device("meta"))], "workspace")
        for shapes in (micro_batches[:1], micro_batches):  # the first is for the optimizer's states alone
            # transformers holds a whole step's micro-batches, in ordinary memory.
            held = [_micro_batch(shape) for shape in shapes] if device_kind == "cpu" else []
            phases = tuple(_step(model, head, trained, states, shapes, counter, offloaded, objective))
            del held
    loading = _loading(model, counter.by_category)
    if device_kind == "cuda":
        phases = (loading, *phases)
    moved = 0 if offloaded is None else offloaded.most_moved
    return Traced(
        phases,
        dict(counter.by_category),
        movable_embedding(model),
        states.managed_bytes,
        moved,
        layers,
        loading.at_peak["workspace"],
    )


def _loading(model: Any, resting: dict[str, int]) -> Phase:
    """The base while it is loaded: transformers quantises one matrix after the other, so one more is there unquantised.

    Of experts a whole layer is, and twice while it is put together from the files' matrices. Modelled, not run
    (transformers 5, `convert_and_load_state_dict_in_model`): in the worst case the largest comes last.
    """
    matrices = [each for each in model.modules() if isinstance(each, (Linear4bit, Linear8bitLt))]
    sizes = [each.in_features * each.out_features for each in matrices]
    for _, experts in experts_of(model):
        sizes += [2 * shape_of(experts.get_parameter(name)).numel() for name in fused_weights(experts)]
    largest = max(sizes, default=0)
    itemsize = next(parameter.element_size() for parameter in model.parameters() if parameter.is_floating_point())
    there = {**dict.fromkeys(resting, 0), **{key: resting[key] for key in ("weights", "quant_constants")}}
    return Phase(LOADING, {**there, "workspace": largest * itemsize})


def _layer_bytes(layer: Layer) -> LayerBytes:
    """As `own_model` counts it: constants are all that is not a weight's own numbers."""
    sizes = [(held.part in ("data", "plain"), -(-held.tensor.nbytes // GRAIN) * GRAIN) for held in layer.held]
    weights = sum(size for is_weight, size in sizes if is_weight)
    return LayerBytes(weights, sum(size for _, size in sizes) - weights, layer.block.bytes)


def own_model(counter: Counter, model: Any) -> None:
    """Count a model's own tensors, each in its category."""
    constants: list[torch.Tensor] = []
    weights: list[torch.Tensor] = list(model.buffers())
    adapters: list[torch.Tensor] = []
    for parameter in model.parameters():
        (adapters if parameter.requires_grad else weights).append(parameter)
        if isinstance(parameter, Params4bit):
            constants.extend(_constants(parameter.quant_state))
    for layer in (module for module in model.modules() if isinstance(module, Linear8bitLt)):
        # The first forward pass moves the scales from the weight to the layer.
        constants.append(layer.weight.SCB if layer.state.SCB is None else layer.state.SCB)
    counter.own(weights, "weights")
    counter.own(constants, "quant_constants")
    counter.own(adapters, "adapters")


def _constants(state: QuantState | None) -> Iterator[torch.Tensor]:
    if state is None:
        return
    for value in (state.absmax, state.code, state.offset):
        if isinstance(value, torch.Tensor):
            yield value
    yield from _constants(state.state2)


def _step(
    model: Any,
    head: Head | None,
    trained: list[Any],
    states: OptimizerStates,
    micro_batches: Sequence[MicroBatch],
    counter: Counter,
    offloaded: Offloaded | None,
    objective: Objective,
) -> Iterator[Phase]:
    """One optimizer step, phase by phase."""

    def phase(name: str) -> Phase:
        ended = Phase(name, counter.at_peak)
        counter.start_peak()
        return ended

    marks = [
        parameter.register_post_accumulate_grad_hook(lambda each: counter.own([each.grad], "gradients"))
        for parameter in trained
    ]
    counter.start_peak()
    for number, shape in enumerate(micro_batches, start=1):
        with counter.during("activations"), offloaded or nullcontext():
            inputs, places, targets, weights = _micro_batch(shape)
            base = model.get_base_model()
            with values_unseen(shape.plain):
                hidden = states_of(base, head, **inputs)
            with counter.during("logits"):
                loss = objective.loss_at(base, head, hidden, places, targets, weights) / targets.shape[0]
            del hidden, inputs
        yield phase(f"forward {number}")
        recomputed = counter.during(lambda: "activations" if torch.is_grad_enabled() else "workspace")
        with recomputed, values_unseen(shape.plain):
            loss.backward()
        if offloaded is not None:
            offloaded.release()
        del loss, places, targets, weights
        yield phase(f"backward {number}")
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    with counter.during("optimizer"):
        states.step()
    yield phase("optimizer")
    for parameter in trained:
        parameter.grad = None
    for mark in marks:
        mark.remove()


def _micro_batch(shape: MicroBatch) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """A micro-batch of the shape: the model's inputs, where the targets are, the targets, and their weights."""
    size = (shape.packs, shape.width)
    ids, labels, extra = (torch.empty(size, dtype=torch.long, device="meta") for _ in range(3))
    inputs = {"input_ids": ids}
    if shape.packed or not shape.plain:
        inputs["position_ids" if shape.packed else "attention_mask"] = extra
    places = torch.empty((shape.trained, 1), dtype=torch.long, device="meta")[:, 0] - 1
    weights = torch.empty(shape.trained, device="meta") if shape.weighted else None
    return inputs, places, labels.flatten()[: shape.trained].clone(), weights
