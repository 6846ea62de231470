"""Where transformers' loading is cut open: its weights go elsewhere as they are made, or come from elsewhere.

`from_pretrained` of transformers 5.23 builds the model without numbers, lets the quantiser put its layers in, calls
`PreTrainedModel._load_pretrained_model` and then finishes the model: it ties weights, makes the buffers that are in no
file, and sets what others read. Only that one call is replaced, for as long as a context lasts; everything else stays
transformers' own.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, core_model_loading, modeling_utils
from transformers.utils.loading_report import LoadStateDictInfo

from core.basemodel.store_index import StoreError

# Takes a parameter, by its name, as it would have been set in the model.
Sink = Callable[[str, torch.Tensor], None]


class Ended(Exception):
    """Ends `from_pretrained` from inside: for who called it with a sink, and nobody else to catch."""


class Taken(Ended):
    """All weights have gone to the sink; `loading` is for `as_loaded` to repeat."""

    def __init__(self, loading: dict[str, Any]) -> None:
        super().__init__()
        self.loading = loading


class SinkFailed(Ended):
    """The sink could not take a weight, because of `error`: nothing is wrong with the base."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def into(begin: Callable[[PreTrainedModel], Sink]) -> Iterator[None]:
    """Inside, `from_pretrained` hands each weight to a sink instead of keeping it, and ends by raising `Ended`.

    `begin` makes the sink, given the model without numbers. Never more than one weight is in memory, or the tensors of
    one that several are put together of. Raises StoreError where the files do not fill the model as they should.
    """
    load = PreTrainedModel._load_pretrained_model

    def replaced(model: Any, state: Any, files: Any, config: Any, *more: Any) -> Any:
        with _sink_errors():
            sink = begin(model)
        taking = mock.patch.object(core_model_loading, "set_param_for_module", _taking(sink))
        # It would take memory for the whole model at once, on a card.
        warming = mock.patch.object(modeling_utils, "caching_allocator_warmup", lambda *_: None)
        # A mapped file counts in full where a process' memory is limited (RLIMIT_DATA), and stays to the end.
        reading = mock.patch.object(modeling_utils, "safe_open", _read_not_mapped)
        with taking, warming, reading:
            info, _ = load(model, state, files, config, *more)
        _refuse_unfilled(model, info)
        used = [place for place, each in enumerate(config.weight_mapping or []) if each.was_used()]
        raise Taken({"missing": sorted(info.missing_keys), "unexpected": sorted(info.unexpected_keys), "used": used})

    with mock.patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(replaced)):
        yield


def _read_not_mapped(file: Any, **how: Any) -> Any:
    return safe_open(file, **{**how, "backend": "pread"})


def _taking(sink: Sink) -> Callable[..., None]:
    put = core_model_loading.set_param_for_module

    def taking(model: Any, name: str, value: torch.Tensor, info: Any, quantizer: Any) -> None:
        path, _, last = name.rpartition(".")
        holder = model.get_submodule(path)
        empty = getattr(holder, last, None)
        if not isinstance(empty, torch.Tensor):
            raise StoreError(f"{name} is no tensor of the model.")
        put(model, name, value, info, quantizer)
        held = getattr(holder, last)
        if held is not empty:  # a tensor of another shape is not set
            setattr(holder, last, empty)
            if hasattr(holder, "quant_state"):  # bitsandbytes' layers hold their constants too
                holder.quant_state = None
            with _sink_errors():
                sink(name, held)

    return taking


@contextmanager
def _sink_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a disk or a kind of tensor that nobody knows may bring
        raise SinkFailed(error) from error


def _refuse_unfilled(model: PreTrainedModel, info: LoadStateDictInfo) -> None:
    """Raise StoreError where loading from these files would leave numbers to chance, or end with an error."""
    odd = [*info.conversion_errors, *(each[0] for each in info.mismatched_keys), *info.error_msgs]
    tied, left_out = model.all_tied_weights_keys, model._keys_to_ignore_on_load_missing or ()
    missing = info.missing_keys - tied.keys() - set(tied.values())
    missing = {name for name in missing if not any(re.search(pattern, name) for pattern in left_out)}
    if odd or missing:
        raise StoreError(f"The files do not fill the model: {sorted(odd or missing)[0]}.")


@contextmanager
def out_of(fill: Callable[[PreTrainedModel], dict[str, Any]]) -> Iterator[None]:
    """Inside, `from_pretrained` has `fill` put all weights in place, and reads none of the base's files.

    `fill` is given the model without numbers, and returns what `Taken` said. Raises what `fill` raises.
    """

    def replaced(model: Any, state: Any, files: Any, config: Any, *more: Any) -> Any:
        return as_loaded(model, config, fill(model)), None

    with mock.patch.object(PreTrainedModel, "_load_pretrained_model", staticmethod(replaced)):
        yield


def as_loaded(model: Any, config: Any, loading: dict[str, Any]) -> LoadStateDictInfo:
    """What transformers said when it loaded the base, and what it noted in the model on how to write it again."""
    mapping = config.weight_mapping or []
    if loading["used"] and max(loading["used"]) >= len(mapping):
        raise StoreError("The quantised copy was made by another version of transformers.")
    for place in loading["used"]:
        mapping[place]._was_used = True
    model._weight_conversions = [mapping[place] for place in loading["used"]]
    return LoadStateDictInfo(
        missing_keys=set(loading["missing"]),
        unexpected_keys=set(loading["unexpected"]),
        mismatched_keys=set(),
        error_msgs=[],
        conversion_errors={},
        skipped_pp_keys=set(),
    )


def put(model: PreTrainedModel, name: str, value: torch.Tensor) -> None:
    """Set a parameter or buffer as transformers' `set_param_for_module` does, with its marks that it is not random."""
    path, _, last = name.rpartition(".")
    holder = model.get_submodule(path)
    value._is_hf_initialized = True
    if hasattr(holder, "source_cls") and last == "weight":  # as Bnb4bitQuantize marks its layers
        holder._is_hf_initialized = True
    setattr(holder, last, value)
