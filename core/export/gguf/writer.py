"""Writes GGUF files: a merged model, or an adapter for a base that is a GGUF already; tensor by tensor."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

from core.export.gguf.families import TensorLayout
from core.export.gguf.settings import write_settings
from core.export.gguf.template import gguf_template
from core.export.gguf.tokenizer import read_vocabulary, write_special_tokens, write_vocabulary
from core.export.merged.weights import MergedWeights
from core.export.shared.destination import ExportError
from core.export.shared.options import GgufType, Say
from core.export.shared.source import ExportSource
from core.export.shared.tokenizer_files import stop_tokens
from core.model.load import load_tokenizer
from core.sizes import show_bytes

_TYPES = {
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}
QUANTISATION_VERSION = 2


@dataclass(frozen=True)
class GgufEntry:
    """One tensor of the file; `source` is its name in transformers, '' where it is computed."""

    name: str
    source: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape)) // block * size


class ModelFile:
    """The tensors that a merged model's GGUF holds, and their values. Raises ExportError for what llama.cpp lacks."""

    def __init__(self, weights: MergedWeights, layout: TensorLayout, kind: GgufType) -> None:
        self.weights, self.layout, self.kind = weights, layout, kind
        self._stored = {each.name: each for each in weights.tensors}
        extra = layout.extra().items()
        computed = [GgufEntry(name, "", tuple(value.shape), GGMLQuantizationType.F32) for name, value in extra]
        self.entries = [*computed, *(self._entry(each.name, each.shape) for each in weights.tensors)]

    def _entry(self, name: str, shape: tuple[int, ...]) -> GgufEntry:
        wanted = _TYPES[self.kind][0]
        block, _ = gguf.GGML_QUANT_SIZES[wanted]
        if len(shape) == 1:  # llama.cpp computes norms and biases in fp32 only
            wanted = GGMLQuantizationType.F32
        elif shape[-1] % block:
            wanted = GGMLQuantizationType.F16
        return GgufEntry(self.layout.name(name), name, shape, wanted)

    def value(self, entry: GgufEntry) -> np.ndarray[Any, Any]:
        """The values of `entry` in fp32, as they are before the rounding to its type."""
        if not entry.source:
            return self.layout.extra()[entry.name].numpy()
        tensor = self.weights.merged(self._stored[entry.source]).float()
        return self.layout.arranged(entry.source, tensor).contiguous().numpy()

    @property
    def bytes(self) -> int:
        """What the tensors take in the file."""
        return sum(entry.bytes for entry in self.entries)


def write_model(file: ModelFile, source: ExportSource, path: Path, say: Say) -> None:
    """Write the merged model with tokenizer and chat template to `path`. Raises ExportError, OSError."""
    layout = file.layout
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[layout.family.arch])
    writer.add_type("model")
    writer.add_name(source.run.name)
    writer.add_file_type(_TYPES[file.kind][1])
    writer.add_quantization_version(QUANTISATION_VERSION)
    write_settings(writer, layout.family.arch, layout.config, layout.context, layout.head_size)
    tokenizer = load_tokenizer(source.base, source.tokenizer)
    write_vocabulary(writer, read_vocabulary(source.tokenizer, layout.config.vocab_size), tokenizer)
    write_special_tokens(writer, tokenizer, stop_tokens(source, tokenizer))
    template = gguf_template(tokenizer)
    if template is not None:
        writer.add_chat_template(template)
    done = 0
    with _written(writer, file.entries):
        for entry in file.entries:
            values = file.value(entry)
            if entry.type == GGMLQuantizationType.F16 and np.abs(values).max() > np.finfo(np.float16).max:
                raise ExportError(f"{entry.name} contains numbers too large for f16. Choose bf16 or q8_0 instead.")
            writer.write_tensor_data(gguf.quants.quantize(values, entry.type))
            done += entry.bytes
            say(f"Writing the GGUF: {show_bytes(done)} of {show_bytes(file.bytes)}", done / file.bytes)


@dataclass(frozen=True)
class AdapterTensor:
    """One half of a layer's adapter under llama.cpp's name: `…weight.lora_a` (rank, in) or `…lora_b` (out, rank)."""

    name: str
    values: np.ndarray[Any, Any]


def adapter_tensors(weights: MergedWeights, layout: TensorLayout, alpha: float) -> Iterator[AdapterTensor]:
    """The adapter's tensors; llama.cpp scales each by `alpha` over its rank, what else scales it goes into B.

    Raises ExportError for DoRA and for modules that were trained whole.
    """
    if weights.trained_whole:
        raise ExportError("An adapter GGUF cannot contain fully trained modules; a merged GGUF can.")
    for module in weights.layers:
        update = weights.update(module)
        assert update is not None  # it is one of those that have an adapter
        if update.magnitude is not None:
            raise ExportError("An adapter GGUF cannot contain DoRA's magnitudes; a merged GGUF can.")
        name = layout.name(f"{module}.weight")
        b = update.b * (update.scaling * update.a.shape[0] / alpha)
        yield AdapterTensor(f"{name}.lora_a", update.a.contiguous().numpy())
        yield AdapterTensor(f"{name}.lora_b", layout.arranged(f"{module}.weight", b).contiguous().numpy())


def write_adapter(weights: MergedWeights, layout: TensorLayout, source: ExportSource, path: Path) -> None:
    """Write the adapter alone, in fp32, to `path`. Raises ExportError, OSError."""
    alpha = source.alpha
    tensors = list(adapter_tensors(weights, layout, alpha))
    writer = GGUFWriter(path, gguf.MODEL_ARCH_NAMES[layout.family.arch])
    writer.add_type("adapter")
    writer.add_name(source.run.name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    entries = [GgufEntry(each.name, "", each.values.shape, GGMLQuantizationType.F32) for each in tensors]
    with _written(writer, entries):
        for each in tensors:
            writer.write_tensor_data(each.values)


@contextmanager
def _written(writer: GGUFWriter, entries: list[GgufEntry]) -> Iterator[None]:
    """Writes header, settings and the list of tensors, and closes the file at the end; tensors come in between."""
    for each in entries:
        writer.add_tensor_info(each.name, each.shape, np.dtype(np.float32), each.bytes, each.type)
    with closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        yield


def model_file(source: ExportSource, weights: MergedWeights, layout: TensorLayout, kind: GgufType) -> ModelFile:
    """The plan of a merged model's GGUF; the tokenizer is looked at too, before anything is written."""
    read_vocabulary(source.tokenizer, layout.config.vocab_size)
    return ModelFile(weights, layout, kind)
