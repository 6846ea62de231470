"""An exported adapter or merged model as plain transformers and peft open it: by the lines of the export's README.

Its template, tokenizer and generation settings come from the folder alone. Only where the numbers are computed is
chosen here: on the device and in the dtype that the chat has, so that what differs is the export's.
"""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from core.basemodel.find import find_model
from core.errors import NibbleError
from core.export.proof.loaded_model import LoadedModel, place_for
from core.export.proof.readers.reader import TokenizerReader
from core.model import moe_quantizer
from core.model.load import dtype_for, keep_quantisation_exact, quantization_config, torch_device
from core.model.remote_code import admit
from core.recipe import QuantizationSettings
from core.setup.llama_cpp import MISSING
from core.system.hardware import Device
from core.untrusted.chat_templates import bound_templates

# What a configuration says beside the sums: of its file, of training, of the ends of texts.
_NOT_COMPUTED_WITH = {
    "_name_or_path", "architectures", "model_type", "transformers_version", "dtype", "max_position_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "initializer_range", "attention_dropout",
    "pretraining_tp", "max_window_layers", "id2label", "label2id",
}  # fmt: skip


class TransformersReader(TokenizerReader):
    """`folder` in the hands of transformers; `load` gives the model when it is first asked to answer."""

    def __init__(self, folder: Path, name: str, load: Callable[[], LoadedModel]) -> None:
        """`name`: the programs that open it. Raises what transformers raises for files that it cannot read."""
        bound_templates()  # a template of strangers' runs within bounds here too; what it renders is the same
        super().__init__(name, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        self._folder, self._load = folder, load

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model."""
        return self._load()

    @property
    def ends(self) -> list[int]:
        """Every token that ends a reply by the folder's generation settings."""
        ends = GenerationConfig.from_pretrained(self._folder).eos_token_id
        return sorted(ends if isinstance(ends, list) else [ends] if ends is not None else [])


def open_model(artefact: dict[str, Any]) -> TransformersReader:
    """The merged model in `artefact["folder"]`."""
    folder = Path(artefact["folder"])

    def load() -> LoadedModel:
        here = place_for(artefact["parameters"], False, artefact["model_type"])
        model = AutoModelForCausalLM.from_pretrained(folder, **_placed(here, artefact["model_type"]))
        return LoadedModel(model.eval(), lambda most: {"do_sample": False, "max_new_tokens": most})

    return TransformersReader(folder, "transformers", load)


def open_adapter(artefact: dict[str, Any]) -> TransformersReader:
    """The adapter in `artefact["folder"]`, over the base that its README names, in the bits that it was trained in."""
    folder = Path(artefact["folder"])

    def load() -> LoadedModel:
        base = find_model(artefact["model"], artefact["revision"])
        here = place_for(artefact["parameters"], artefact["packed"], base.model_type)
        admit(base)
        placed = _placed(here, base.model_type)
        quantization = quantization_config(QuantizationSettings(**artefact["quantization"]), placed["dtype"])
        with moe_quantizer.theirs():
            model = AutoModelForCausalLM.from_pretrained(base.folder, quantization_config=quantization, **placed)
        keep_quantisation_exact(model)
        return LoadedModel(PeftModel.from_pretrained(model, folder).eval(), settings)

    def settings(most: int) -> dict[str, Any]:
        return {"generation_config": GenerationConfig.from_pretrained(folder, do_sample=False, max_new_tokens=most)}

    return TransformersReader(folder, "transformers and peft", load)


def load_gguf(artefact: dict[str, Any], settings: Callable[[int], dict[str, Any]]) -> LoadedModel:
    """The GGUF `artefact["file"]` in `artefact["folder"]`, as transformers' own loader reads it.

    That reads less than llama.cpp does. Raises NibbleError where it knows no such architecture, or would compute
    with other settings than the base: then it proves nothing, and llama.cpp is needed.
    """
    if "over" in artefact:
        raise NibbleError(f"only llama.cpp can combine a base model and a separate adapter: {MISSING}")
    own, path = find_model(artefact["model"], artefact["revision"]).folder, Path(artefact["folder"])
    try:
        config = AutoConfig.from_pretrained(path, gguf_file=artefact["file"])
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise NibbleError(
            f"only llama.cpp can prove it, for transformers says: {reason}. As for llama.cpp, {MISSING}"
        ) from None
    base = AutoConfig.from_pretrained(own, trust_remote_code=False)
    lost = lost_settings(base.to_dict(), config.to_dict())
    if lost:
        raise NibbleError(
            f"transformers reads another {' and another '.join(lost)} from this GGUF than the base has, so only "
            f"llama.cpp can prove it: {MISSING}"
        )
    here = place_for(artefact["parameters"], False, base.model_type)
    model = AutoModelForCausalLM.from_pretrained(path, gguf_file=artefact["file"], **_placed(here, base.model_type))
    return LoadedModel(model.eval(), settings)


def lost_settings(base: dict[str, Any], read: dict[str, Any]) -> list[str]:
    """The settings of both configurations that differ and change what is computed."""
    both = sorted((base.keys() & read.keys()) - _NOT_COMPUTED_WITH)
    return [key for key in both if not _is_close(base[key], read[key])]


def _is_close(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):  # a GGUF has them in fp32
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)


def _placed(here: Device, model_type: str) -> dict[str, Any]:
    return {"dtype": dtype_for(here, model_type)[0], "device_map": {"": torch_device(here)}, "trust_remote_code": False}
