"""Which linear layers of a model a batch of text reaches: only these can learn from text.

The architecture is built a second time on meta tensors and given two tokens. Vision and audio towers, their projections
and cross-attention to pictures are not reached.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from core.model.attention import FLASH

LINEAR = (torch.nn.Linear, Conv1D)
_MOST_KNOWN = 64
_known: dict[tuple[type, str], TextReach] = {}


@dataclass(frozen=True)
class TextReach:
    """Names of linear layers: those that text does not reach, and those that return more than one tensor.

    The latter are routers with a class of their own. Neither kind can use an adapter.
    """

    unreached: frozenset[str]
    choosers: frozenset[str] = frozenset()


def reach(model: PreTrainedModel) -> TextReach:
    """What of `model` cannot learn from text; nothing, in a model for text alone.

    Where its pass cannot be followed on meta tensors, all that is outside of its decoder, if its config names one.
    """
    key = type(model), model.config.to_json_string(use_diff=False)
    if key not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = _find(model)
    return _known[key]


def _find(model: PreTrainedModel) -> TextReach:
    linear, met = _linear(model), dict[str, bool]()

    def meet(name: str, module: torch.nn.Module, given: Any, answer: Any) -> None:
        met[name] = isinstance(answer, torch.Tensor)

    try:
        config = copy.deepcopy(model.config)
        if config._attn_implementation == FLASH:  # has no meta kernels, and reaches the same layers
            config._attn_implementation = "sdpa"
        with torch.device("meta"), no_init_weights():
            twin = type(model)(config).eval()
        for name, module in _linear(twin).items():
            module.register_forward_hook(partial(meet, name))
        with torch.no_grad(), values_unseen():
            twin(input_ids=torch.zeros((1, 2), dtype=torch.long, device="meta"), use_cache=False)
    except Exception:  # an architecture that looks at values, as hand-written routing does: go by its config
        return TextReach(frozenset(name for name in linear if not _is_in_decoder(name, model)))
    return TextReach(frozenset(linear) - set(met), frozenset(name for name, plain in met.items() if not plain))


def _linear(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LINEAR)}


def _is_in_decoder(name: str, model: PreTrainedModel) -> bool:
    """Whether a layer is of the part that reads and writes text, by what transformers says that is."""
    if model.config.get_text_config() is model.config:
        return True
    decoder = model.get_decoder()
    inside = next((path for path, module in model.named_modules() if module is decoder), "")
    return not inside or name.startswith(f"{inside}.")


@contextmanager
def values_unseen(plain: bool = True) -> Iterator[None]:
    """Keep transformers from looking at the values of masks and positions: meta tensors have none.

    `plain`: each row is one conversation and nothing else, so that attention needs no mask.
    """
    with ExitStack() as stack:
        if plain:
            stack.enter_context(mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda _: None))
        else:
            stack.enter_context(mock.patch("transformers.masking_utils.is_tracing", lambda *_: True))
        yield
