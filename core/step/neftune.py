"""NEFTune (arXiv 2310.05914): noise on the input embeddings while training, sized by each conversation's own length.

transformers' hook sizes it by the width of the batch, which padding and packing change; the authors' own code takes the
length of each conversation, and so does this. There is none in evaluation or generation.
"""

from typing import Any

import torch

from core.step.head import backbone_of


def add_noise(causal: Any, alpha: float) -> None:
    """Train `causal` (the model itself, not PEFT's wrapper) with noise, even within ± alpha / √(tokens · width)."""
    tokens: list[torch.Tensor] = []

    def remember(backbone: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given = {"input_ids": args[0], **kwargs} if args else kwargs  # GPT-NeoX gives them by place
        tokens[:] = [lengths(given)] if backbone.training else []

    def disturb(embeddings: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        if not embeddings.training or not tokens:
            return output
        size = alpha / (tokens[0] * output.shape[-1]).sqrt()
        return output + torch.empty_like(output).uniform_(-1, 1) * size[..., None].to(output.dtype)

    backbone_of(causal).register_forward_pre_hook(remember, with_kwargs=True)
    causal.get_input_embeddings().register_forward_hook(disturb)


def lengths(inputs: dict[str, Any]) -> torch.Tensor:
    """The length, in tokens, of the conversation that each token of a micro-batch belongs to: (rows, width), fp32."""
    ids = inputs["input_ids"]
    positions, mask = inputs.get("position_ids"), inputs.get("attention_mask")
    if positions is not None:
        conversation = (positions == 0).flatten().cumsum(0) - 1
        return conversation.bincount()[conversation].view(positions.shape).float()
    real = torch.ones_like(ids) if mask is None else mask
    return real.sum(1, keepdim=True).expand(ids.shape).float()
