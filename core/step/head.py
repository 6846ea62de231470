"""How a model makes logits of its last hidden states: found out by running that part of the model's own code.

A linear layer makes them, and some families scale them (Granite, Cohere, Falcon-H1) or cap them softly (Gemma). No
setting is read for that: the same name means different things, such as `logits_scaling`, by which Granite divides the
logits, HyperCLOVA X multiplies them, and MiniCPM3 divides the hidden states (transformers 5.23, `forward` in each
family's modeling file). Instead the model runs with known numbers in place of what its layers and its head compute,
which works on meta tensors as well.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from peft.utils import ModulesToSaveWrapper

# The numbers that the head is made to return. Powers of two, so that a scale is read exactly: one so small that
# a soft cap leaves it as it is, and one that no cap lets through.
SMALL, LARGE = 2.0**-40, 2.0**30
# Above the rounding of bf16 logits, far below what a forgotten scale or cap changes.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Head:
    """Logits are `scale` times what the linear layer returns, and bounded softly by `cap`: cap · tanh(logits / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def shaped(self, logits: torch.Tensor) -> torch.Tensor:
        """What the layer returns as the model's logits; written over `logits`."""
        if self.scale != 1:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)


def output_head(model: Any) -> Any:
    """The module that turns hidden states into logits; its trained copy where it is trained in full."""
    head = model.get_output_embeddings()
    return head.modules_to_save[head.active_adapter] if isinstance(head, ModulesToSaveWrapper) else head


def backbone_of(model: Any) -> Any:
    """All of a causal model but its head."""
    # The text model of Llama 4 names its own after another class (transformers 5.23, `base_model_prefix`).
    return model.model if model.base_model is model else model.base_model


def last_hidden(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """What the model computes before its head: (rows, width, hidden size)."""
    hidden: torch.Tensor = backbone_of(model)(**inputs, use_cache=False).last_hidden_state
    return hidden


def logits_of(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, head: Head) -> torch.Tensor:
    """(tokens, width) to (tokens, vocabulary), fp32."""
    return head.shaped(torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float())


def head_of(model: Any) -> Head | None:
    """The head of a causal model, on meta tensors or not; None where it computes anything else than `Head` says."""
    layer = output_head(model)
    if type(layer) is not torch.nn.Linear:
        return None
    given = torch.linspace(-100, 100, layer.out_features, dtype=torch.float64)
    given[:2] = torch.tensor([SMALL, LARGE])
    try:
        factor, found = _observed(model, layer.in_features, given)
    except Exception:  # whatever an architecture's own code says to numbers that its layers never compute
        return None
    slope, bound = float(found[0] / SMALL), float(found[1])
    rounded = 1.0 if math.isclose(slope, 1) else slope
    head = Head(rounded, None if bound == slope * LARGE else bound)
    if found.shape != given.shape or not torch.allclose(head.shaped(given), found, rtol=1e-5):
        return None
    if factor != 1 and layer.bias is not None:  # it would have to be scaled as well
        return None
    return Head(head.scale * factor, head.cap)


def _observed(model: Any, width: int, given: torch.Tensor) -> tuple[float, torch.Tensor]:
    """By what the model multiplies its last hidden states, (width,), for its head, and its logits where that returns
    `given`, (vocabulary,)."""
    hidden, seen = torch.ones(1, 1, width, dtype=torch.float64), []

    def head(states: torch.Tensor) -> torch.Tensor:
        seen.append(states)
        return given.clone()[None, None]

    def backbone(*_: Any, **__: Any) -> Any:
        return _LastHidden(hidden)

    with ExitStack() as replaced:
        replaced.enter_context(torch.no_grad())
        replaced.enter_context(mock.patch.object(model.get_output_embeddings(), "forward", head))
        for each in {backbone_of(model), backbone_of(model).get_decoder()}:  # OPT's forward calls the inner one
            replaced.enter_context(mock.patch.object(each, "forward", backbone))
        logits = model(input_ids=torch.zeros((1, 1), dtype=torch.long), use_cache=False).logits
    (states,) = seen
    factor = float(states.flatten()[0])
    if states.shape != hidden.shape or not (states == factor).all():
        raise ValueError("the head is given something else than the last hidden states")
    return factor, logits.double().flatten()


class _LastHidden:
    """A backbone's output of which only the hidden states are known."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, at: int) -> torch.Tensor:
        return (self.last_hidden_state,)[at]

    def __getattr__(self, name: str) -> None:
        return None


def exact_head(model: Any) -> Head | None:
    """`head_of` a loaded model, where that gives the logits that the model itself gives for some tokens; else None."""
    was_training = model.training
    model.eval()
    try:
        head = head_of(model)
        if head is None:
            return None
        layer = output_head(model)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(layer.weight.shape[0], (1, 12), generator=generator).to(layer.weight.device)
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits[0].float()
            found = logits_of(last_hidden(model, input_ids=ids)[0], layer.weight, layer.bias, head)
    except (AttributeError, TypeError):  # an architecture whose backbone takes other arguments
        return None
    finally:
        model.train(was_training)
    same = expected.shape == found.shape and (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return head if same else None
