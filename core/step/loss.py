"""The loss of the trained tokens alone, from the last hidden states: the logits of a whole batch are never made.

Only positions that have a target are projected onto the vocabulary, some at a time, and each part's gradient is taken
while its logits are there (after Liger Kernel's fused linear cross-entropy, arXiv 2410.10989). Covered: an output head
that is a plain linear layer with or without bias, frozen or trained whole, with Gemma's soft cap. `head_is_exact`
checks on the loaded model that this is what the model itself computes; if not, trl's fused head is used.
"""

from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper

from core.data.rendering.render import IGNORED

# Logits that exist at one time: 64 MiB in fp32, whatever the vocabulary.
LOGITS_AT_ONCE = 2**24
# Above the rounding of bf16 logits, far below what a forgotten scale or cap changes.
TOLERANCE = 0.02


class TrainedTokensLoss(torch.autograd.Function):
    """Summed negative log-likelihood, in nats, of `targets` (tokens,) from `hidden` (tokens, width); a scalar, fp32.

    `weight` (vocabulary, width) and `bias` (vocabulary,) or None are the head's. `by` (tokens,), fp32, is each target's
    weight; None for 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        by: torch.Tensor | None,
        cap: float | None,
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
            logits = logits_of(hidden[rows], weight, bias, cap)
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            each = normaliser - logits.gather(1, targets[rows, None])
            total += each.sum() if by is None else (each[:, 0] * by[rows]).sum()
            if not any(wanted[:3]):
                continue
            error = _error(logits, normaliser, targets[rows], None if by is None else by[rows], cap)
            narrow = error.to(weight.dtype)
            if d_hidden is not None:
                d_hidden[rows] = narrow @ weight
            if d_weight is not None:
                d_weight += narrow.t() @ hidden[rows].to(weight.dtype)
            if d_bias is not None:
                d_bias += error.sum(0)
            del narrow
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of the forward pass, times the incoming gradient (one number)."""
        found = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        own = [None if each is None else (each * gradients[0]).to(dtype) for each, dtype in found]
        return *own, None, None, None


def _error(
    logits: torch.Tensor, normaliser: torch.Tensor, targets: torch.Tensor, by: torch.Tensor | None, cap: float | None
) -> torch.Tensor:
    """The gradient of the loss by the logits before their cap, (tokens, vocabulary), written over `logits`."""
    slope = None if cap is None else 1 - (logits / cap) ** 2
    error = logits.sub_(normaliser).exp_()
    error.scatter_add_(1, targets[:, None], torch.full_like(normaliser, -1.0))
    if slope is not None:
        error.mul_(slope)
    if by is not None:
        error.mul_(by[:, None])
    return error


def logits_of(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, cap: float | None) -> torch.Tensor:
    """(tokens, width) to (tokens, vocabulary), fp32."""
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def soft_cap(model: Any) -> float | None:
    """Gemma's bound on the logits, or None."""
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None)


def summed_loss(
    model: Any, labels: torch.Tensor, weights: torch.Tensor | None = None, **inputs: torch.Tensor
) -> torch.Tensor:
    """Summed loss in nats over `labels` (rows, width) as transformers has them, IGNORED left out; a scalar, fp32.

    `model` is the causal model itself, its adapters inside it, not PEFT's wrapper.
    """
    hidden = last_hidden(model, **inputs)
    labels = labels.flatten().to(hidden.device)
    # A row's first token is never a target, so the place before a target is always in its own row.
    places = (labels != IGNORED).nonzero()[:, 0]
    by = None if weights is None else weights.flatten().to(hidden.device)[places]
    return loss_at(model, hidden, places - 1, labels[places], by)


def last_hidden(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """What the model computes before its head: (rows, width, hidden size)."""
    hidden: torch.Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden


def loss_at(
    model: Any, hidden: torch.Tensor, places: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """The summed loss of predicting `targets` (tokens,) from `hidden` at `places` (tokens,) of its flattened rows."""
    chosen = hidden.flatten(0, 1).index_select(0, places)
    head = output_head(model)
    result: torch.Tensor = TrainedTokensLoss.apply(chosen, head.weight, head.bias, targets, weights, soft_cap(model))
    return result


def output_head(model: Any) -> Any:
    """The module that turns hidden states into logits; its trained copy where it is trained in full."""
    head = model.get_output_embeddings()
    return head.modules_to_save[head.active_adapter] if isinstance(head, ModulesToSaveWrapper) else head


def head_is_exact(model: Any) -> bool:
    """Whether `logits_of` the last hidden states are the model's own logits; False where that cannot be tested."""
    head = output_head(model)
    if type(head) is not torch.nn.Linear:
        return False
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(head.weight.shape[0], (1, 12), generator=generator).to(head.weight.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits[0].float()
            found = logits_of(last_hidden(model, input_ids=ids)[0], head.weight, head.bias, soft_cap(model))
    except (AttributeError, TypeError):  # an architecture whose backbone takes other arguments
        return False
    finally:
        model.train(was_training)
    return expected.shape == found.shape and bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
