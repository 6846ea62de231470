"""Which linear layers of a model a batch of text reaches: only they can learn from text, whatever else a model holds.

The model's architecture is laid out a second time on meta tensors and is given two tokens. Towers for pictures and
sound, the layers that carry them over, and attention to pictures between the layers of text are not met by these.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
    """Names of linear layers: those that text does not reach, and those that answer with more than one tensor.

    The latter choose experts by a class of their own; an adapter can be added to neither's answer with any sense.
    """

    unreached: frozenset[str]
    choosers: frozenset[str] = frozenset()


def reach(model: PreTrainedModel) -> TextReach:
    """What of `model` cannot learn from text; of a model for text alone all can.

    Where its pass cannot be followed without values, all that lies outside of its decoder, if its config names one.
    """
    key = type(model), model.config.to_json_string(use_diff=False)
    if key not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = _find(model)
    return _known[key]


def _find(model: PreTrainedModel) -> TextReach:
    linear, met = _linear(model), dict[str, bool]()

    def follow(name: str, module: torch.nn.Module) -> None:
        def meet(module: torch.nn.Module, given: Any, answer: Any) -> None:
            met[name] = isinstance(answer, torch.Tensor)

        module.register_forward_hook(meet)

    try:
        config = copy.deepcopy(model.config)
        if config._attn_implementation == FLASH:  # its kernels know no meta tensors; which layers are met is the same
            config._attn_implementation = "sdpa"
        with torch.device("meta"), no_init_weights():
            twin = type(model)(config).eval()
        for name, module in _linear(twin).items():
            follow(name, module)
        with torch.no_grad(), values_unseen():
            twin(input_ids=torch.zeros((1, 2), dtype=torch.long, device="meta"), use_cache=False)
    except Exception:  # an architecture that looks at values, as routing by hand does: its config has to tell
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
    """transformers looks at the values of masks and positions, unless it is traced; on meta there are none to look at.

    `plain`: each row is one conversation and nothing else, so that attention needs no mask.
    """
    with ExitStack() as stack:
        if plain:
            stack.enter_context(mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda _: None))
        else:
            stack.enter_context(mock.patch("transformers.masking_utils.is_tracing", lambda *_: True))
        yield
