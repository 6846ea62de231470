"""Whether a model's files hold the weights that its architecture needs, from their headers, before loading.

python -m core.model.fit MODEL [COMMIT]      (prints JSON; `core.basemodel.download` asks it so)

transformers fills a missing weight with random numbers and warns in a log. Here its own loading is run with the files'
tensors on meta: its renamings, prefixes, tied weights and fused experts are included, and no number is read. Needs
torch. Not covered: models with code of their own, which `refuse_random` checks after loading.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import logging as their_logging

from core.basemodel.architectures import needs_code
from core.basemodel.find import FoundModel, find_model
from core.basemodel.headers import TensorShape, fetch_headers
from core.errors import ModelError, NibbleError
from core.model.meta import outline

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Prefixes that tools leave around every name, and what to do about them.
_WRAPPED = {
    "_orig_mod": "torch.compile adds it: save the model that is inside (model._orig_mod.save_pretrained)",
    "module": "DistributedDataParallel adds it: save the model that is inside (model.module.save_pretrained)",
    "base_model": "PEFT adds it: merge the adapter (merge_and_unload) and save the result",
}
# What older versions saved with the weights and no longer use: masks, rotations, positions.
_NO_WEIGHTS = re.compile(r"inv_freq|masked_bias|position_ids|(k|v|q|kv)_scale$")
_AHEAD = re.compile(r"nextn|mtp|multi_token")
_known: dict[Any, ModelFit] = {}


@dataclass(frozen=True)
class ModelFit:
    """How a model's files fit its architecture.

    `wrong` says in sentences what is wrong, '' where all that text needs is there. `note` is a sentence on a harmless
    difference, or why nothing could be decided; '' without either.
    """

    wrong: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Loaded:
    """What transformers says of a loading."""

    missing: list[str]
    foreign: list[str]
    misshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]]


def refuse_misfit(found: FoundModel) -> ModelFit:
    """Raise ModelError where the files of `found`, here or still on the Hub, do not suit its architecture."""
    fit = fit_of(found)
    if fit.wrong:
        raise ModelError(fit.wrong)
    return fit


def fit_of(found: FoundModel) -> ModelFit:
    """How the files of `found` suit its architecture. Raises ModelError: it cannot be built, or the Hub not asked."""
    if needs_code(found.config):
        return ModelFit(note=f"{found.label} uses its own code, so its files are checked when it is loaded.")
    tensors = found.tensors or fetch_headers(found.source, str(found.revision), found.files)
    key = (found.label, json.dumps(found.config, sort_keys=True), tuple(tensors))
    if key not in _known:
        _known.clear()  # the same model is checked again and again
        _known[key] = _fit(found, tensors)
    return _known[key]


def _fit(found: FoundModel, tensors: Sequence[TensorShape]) -> ModelFit:
    model = outline(found.config, torch.bfloat16)
    loaded = _load_on_meta(model, tensors)
    by_name, modules = {tensor.name: tensor for tensor in tensors}, dict(model.named_modules())
    foreign = [name for name in loaded.foreign if not _does_no_harm(name, by_name.get(name), modules, model.config)]
    unused = sorted(set(loaded.foreign) - set(foreign))
    note = (
        f"The files of {found.label} hold {_weights(unused)} that it does not use ({_first(unused)})." if unused else ""
    )
    wrong = _wrong(loaded, foreign, model)
    return ModelFit(f"{found.label}: {wrong}" if wrong else "", note)


def _load_on_meta(model: PreTrainedModel, tensors: Sequence[TensorShape]) -> _Loaded:
    """transformers' loading of `tensors` into `model`, all of it on meta; what it says afterwards."""
    state = {
        tensor.name: torch.empty(tensor.shape, dtype=_DTYPES.get(tensor.dtype, torch.uint8), device="meta")
        for tensor in tensors
    }
    config = LoadStateDictConfig(
        pretrained_model_name_or_path=None,
        ignore_mismatched_sizes=True,
        device_map={"": "meta"},
        dtype=model.dtype,
        dtype_plan={},
        weight_mapping=get_model_conversion_mapping(model),
    )
    kind = type(model)
    with _quietly():
        info, _ = kind._load_pretrained_model(model, state, None, config)
        try:
            kind._finalize_model_loading(model, config, info)
        except RuntimeError:
            # It raises after its report where tensors could not be put together; these are among the missing.
            if not info.conversion_errors:
                raise
    misshaped = [(name, tuple(have), tuple(wants)) for name, have, wants in info.mismatched_keys]
    return _Loaded(sorted(info.missing_keys), sorted(info.unexpected_keys), sorted(misshaped))


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress transformers' report and progress bars: the caller reports instead."""
    logger, bars = logging.getLogger("transformers.modeling_utils"), their_logging.is_progress_bar_enabled()
    logger.disabled = True
    their_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.disabled = False
        if bars:
            their_logging.enable_progress_bar()


def _does_no_harm(name: str, tensor: TensorShape | None, modules: dict[str, Any], config: Any) -> bool:
    """Whether a tensor that the architecture has no place for may be ignored.

    It may if it is not learned, or belongs to a part that the architecture lacks: a vision tower, the head of another
    task, layers that predict further ahead. It may not inside a layer that exists, nor as an additional layer: then
    config.json describes another model than the files hold.
    """
    if _NO_WEIGHTS.search(name) or (tensor is not None and _is_mask(tensor)):
        return True
    parts = name.split(".")
    depth = next(count for count in range(len(parts) - 1, -1, -1) if ".".join(parts[:count]) in modules)
    above = modules[".".join(parts[:depth])]
    if parts[depth].isdigit():  # a layer more
        return _predicts_ahead(config, int(parts[depth]) - len(list(above.children())) + 1)
    return not any(part.isdigit() for part in parts[:depth]) and not any(True for _ in above.parameters(recurse=False))


def _is_mask(tensor: TensorShape) -> bool:
    """Whether it is a mask, or a single number: no matrix and no vector of weights."""
    square = len(tensor.shape) == 4 and tensor.shape[:2] == (1, 1) and tensor.shape[2] == tensor.shape[3]
    scale_of_weights = tensor.elements <= 1 and "weight_scale" in tensor.name
    return square or tensor.dtype == "BOOL" or (tensor.elements <= 1 and not scale_of_weights)


def _predicts_ahead(config: Any, layers: int) -> bool:
    """Whether the config mentions so many layers after the last that predict further tokens."""
    values = config.get_text_config().to_dict()
    return any(isinstance(value, int) and value >= layers for key, value in values.items() if _AHEAD.search(key))


def _wrong(loaded: _Loaded, foreign: list[str], model: PreTrainedModel) -> str:
    """What is wrong, and what to do; '' where nothing is. `foreign` are the harmful ones of `loaded`."""
    missing, misshaped, total = loaded.missing, loaded.misshaped, len(model.state_dict())
    found = []
    if missing:
        found.append(
            f"its files lack {len(missing):,} of the {total:,} weights that its config.json asks for "
            f"({_first(missing)}), which would be random"
        )
    if misshaped:
        name, have, wants = misshaped[0]
        found.append(
            f"{_weights([each[0] for each in misshaped])} {'have' if len(misshaped) > 1 else 'has'} a different "
            f"shape from config.json ({name} is {_by(have)} instead of {_by(wants)})"
        )
    if foreign:
        found.append(
            f"its files hold {_weights(foreign)} that config.json has no place for ({_first(foreign)}), which would be "
            "left out"
        )
    if not found:
        return ""
    return f"{'; '.join(found)}. {_mend(loaded, foreign, model)}"


def _mend(loaded: _Loaded, foreign: list[str], model: PreTrainedModel) -> str:
    missing = loaded.missing
    wrapper = next(
        (each for each in _WRAPPED if missing and any(each in name.split(".") for name in loaded.foreign)), ""
    )
    if wrapper:
        return f"Its names hold {wrapper}: {_WRAPPED[wrapper]}."
    if not missing and foreign:
        return "Fix config.json (such as its number of layers), or use a copy whose files match."
    head = model.get_output_embeddings()
    if head is not None and len(missing) == 1 and model.get_parameter_or_buffer(missing[0]) is head.weight:
        return (
            "Save the model again with its head; if its head is tied to the embeddings, set tie_word_embeddings to "
            "true in config.json."
        )
    return "Download the model again, or use a copy whose weights and config.json match."


def _first(names: Sequence[str]) -> str:
    return f"{names[0]}{' first' * (len(names) > 1)}"


def _weights(names: Collection[str]) -> str:
    return f"{len(names):,} weight{'s' * (len(names) != 1)}"


def _by(shape: Sequence[int]) -> str:
    return " × ".join(f"{size:,}" for size in shape) or "a single number"


def refuse_random(model: PreTrainedModel, info: dict[str, Any], label: str) -> None:
    """Raise ModelError where the loaded `model` holds weights that did not come from its files.

    `info` is transformers' `output_loading_info`. transformers does not compare the shapes of matrices that it
    quantises; this does.
    """
    missing, misshaped = sorted(info["missing_keys"]), [each[0] for each in info["mismatched_keys"]]
    for name, module in model.named_modules():
        held = module.weight if isinstance(module, (Linear4bit, Linear8bitLt)) else None
        if held is not None and _unpacked(held) != (module.out_features, module.in_features):
            misshaped.append(f"{name}.weight")
    for names, what in ((missing, "not in its files"), (misshaped, "of another shape in its files")):
        if names:
            are = "is" if len(names) == 1 else "are"
            raise ModelError(
                f"{label}: {_weights(names)} of the model {are} {what} ({names[0]}), and would be random. Download the "
                "model again, or use a copy whose weights and config.json match."
            )


def _unpacked(weight: Any) -> tuple[int, ...]:
    state = getattr(weight, "quant_state", None)
    return tuple(weight.shape if state is None else state.shape)


def main(model: str, revision: str | None = None) -> None:
    """Print `{"error": sentence or null}` of a model."""
    error = None
    try:
        refuse_misfit(find_model(model, revision))
    except NibbleError as refused:
        error = str(refused)
    print(json.dumps({"error": error}))


if __name__ == "__main__":
    main(*sys.argv[1:])
