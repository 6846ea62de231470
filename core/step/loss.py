"""The loss of the trained tokens alone, from the last hidden states: the logits of a whole batch are never made.

Only positions that have a target are projected onto the vocabulary, some at a time, and each part's gradient is taken
while its logits are there (after Liger Kernel's fused linear cross-entropy, arXiv 2410.10989). Covered: every head that
`core.step.head.Head` describes, with or without bias, frozen or trained whole. Any other model makes all its logits
itself. trl's fused head is not used: it multiplies by the head's weight whatever else the model does there, and on a
GPU under Linux it compiles Triton kernels, for which a C compiler is needed (trl 1.16, kernels/chunked_logprob.py,
`_use_triton`).
"""

from typing import Any

import torch

from core.data.rendering.render import IGNORED
from core.step.head import Head, last_hidden, logits_of, output_head

# Logits that exist at one time: 64 MiB in fp32, whatever the vocabulary.
LOGITS_AT_ONCE = 2**24


class TrainedTokensLoss(torch.autograd.Function):
    """Summed negative log-likelihood, in nats, of `targets` (tokens,) from `hidden` (tokens, width); a scalar, fp32.

    `weight` (vocabulary, width) and `bias` (vocabulary,) or None are the head's layer's. `by` (tokens,), fp32, is each
    target's weight; None for 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        by: torch.Tensor | None,
        head: Head,
    ) -> torch.Tensor:
        """The loss, together with the gradients of the hidden states and of the head where they are needed."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        wanted = ctx.needs_input_grad
        d_hidden = torch.empty_like(hidden) if wanted[0] else None
        # Summed over many parts, so in fp32.
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        if hidden.dtype.itemsize < weight.dtype.itemsize:  # a trained head is kept in fp32 and need not compute in it
            weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        part = max(1, LOGITS_AT_ONCE // weight.shape[0])
        for start in range(0, len(hidden), part):
            rows = slice(start, start + part)
            logits, own = logits_of(hidden[rows], weight, bias, head), None if by is None else by[rows, None]
            total += _loss(logits, targets[rows, None], own, head, any(wanted[:3]))
            if not any(wanted[:3]):
                continue
            error = logits.to(weight.dtype)
            # Or else they would be there until the next part's have been made.
            del logits
            if d_hidden is not None:
                d_hidden[rows] = error @ weight
            if d_weight is not None:
                d_weight += error.t() @ hidden[rows].to(weight.dtype)
            if d_bias is not None:
                d_bias += error.sum(0, dtype=torch.float32)
            del error
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the forward pass, times the incoming gradient (one number)."""
        found = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        own = [None if each is None else (each * gradients[0]).to(dtype) for each, dtype in found]
        return *own, None, None, None


def _loss(
    logits: torch.Tensor, targets: torch.Tensor, by: torch.Tensor | None, head: Head, wants_gradient: bool
) -> torch.Tensor:
    """The summed loss of `targets` (tokens, 1), each times its weight `by` (tokens, 1).

    Written over `logits` (tokens, vocabulary), if wanted: the gradient of the loss by what the head's layer returned.
    All is done in place: `logsumexp` would make a copy inside one operator, where a trace does not see it.
    """
    # The derivative of the soft cap.
    slope = logits.div(head.cap).square_().neg_().add_(1) if head.cap is not None and wants_gradient else None
    highest = logits.amax(1, keepdim=True)
    likely = logits.gather(1, targets).sub_(highest)
    powers = logits.sub_(highest).exp_()
    total = powers.sum(1, keepdim=True)
    each = total.log().sub_(likely)
    loss = (each if by is None else each * by).sum()
    if wants_gradient:
        error = powers.div_(total).scatter_add_(1, targets, torch.full_like(total, -1.0))
        for factor in (slope, by, None if head.scale == 1 else head.scale):
            if factor is not None:
                error.mul_(factor)
    return loss


def summed_loss(
    model: Any, head: Head | None, labels: torch.Tensor, weights: torch.Tensor | None = None, **inputs: torch.Tensor
) -> torch.Tensor:
    """Summed loss in nats over `labels` (rows, width) as transformers has them, IGNORED left out; a scalar, fp32.

    `model` is the causal model itself, its adapters inside it, not PEFT's wrapper; `head` is as `head_of` finds it.
    """
    states = states_of(model, head, **inputs)
    labels = labels.flatten().to(states.device)
    # A row's first token is never a target, so the place before a target is always in its own row.
    places = (labels != IGNORED).nonzero()[:, 0]
    by = None if weights is None else weights.flatten().to(states.device)[places]
    return loss_at(model, head, states, places - 1, labels[places], by)


def states_of(model: Any, head: Head | None, **inputs: torch.Tensor) -> torch.Tensor:
    """What the loss is computed from, (rows, width, size): the last hidden states; all logits where `head` is None."""
    if head is not None:
        return last_hidden(model, **inputs)
    logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits


def loss_at(
    model: Any,
    head: Head | None,
    states: torch.Tensor,
    places: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """The summed loss of predicting `targets` (tokens,) from `states` at `places` (tokens,) of its flattened rows."""
    chosen = states.flatten(0, 1).index_select(0, places)
    if head is None:
        each = torch.nn.functional.cross_entropy(chosen.float(), targets, reduction="none")
        return (each if weights is None else each * weights).sum()
    layer = output_head(model)
    result: torch.Tensor = TrainedTokensLoss.apply(chosen, layer.weight, layer.bias, targets, weights, head)
    return result
