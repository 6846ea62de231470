"""The weights that a run's chat computes with, its adapter merged in: one tensor of the base's files at a time.

Onto `dequantised` weights each matrix that the chat holds in 4 bits is quantised just as loading quantises it, and
dequantised again, before the adapter is added: that is the very sum that the chat computes (QLoRA, section 3). Onto
`original` weights it is added to what the base's files hold. What a chat in text never computes with, such as a tower
that sees images, is left as the base has it both ways.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import PeftConfig, PeftModel
from peft.tuners.lora import Linear
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.pytorch_utils import Conv1D

from core.basemodel.find import weight_files
from core.export.merged.shards import DTYPES
from core.export.shared.destination import ExportError
from core.export.shared.options import Onto
from core.export.shared.source import ExportSource
from core.memory.meta_model import meta_base
from core.model.load import dtype_for, torch_device
from core.model.lora_init import ADAPTER, lora_layers
from core.recipe import QuantizationSettings
from core.system.hardware import Device
from core.text.library_errors import telling_line

ADAPTER_CAN = "Export the adapter instead; it contains everything."


@dataclass(frozen=True)
class Stored:
    """One tensor of the base's files: its name there, its name in the model, its shape and dtype."""

    key: str
    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Update:
    """What one layer's adapter adds to its matrix W (out, in): scaling · B A; then, for DoRA, rows of `magnitude`.

    `a` is (rank, in), `b` (out, rank), `magnitude` (out), all in fp32; `magnitude` is None but for DoRA.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    magnitude: torch.Tensor | None

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """`weight` (out, in) in fp32 with the update merged in (LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353)."""
        merged = torch.addmm(weight, self.b, self.a, alpha=self.scaling)
        if self.magnitude is None:
            return merged
        return merged * (self.magnitude / torch.linalg.norm(merged, dim=1))[:, None]


class MergedWeights:
    """What `tensors` lists can be had by `merged`, in any order. Adapters and the model's outline are held, no weights.

    `others` are tensors of the base's files that this model does not load, such as a tower that sees images, and second
    copies of what it loads: a whole model has them all the same. Their name is that of what they copy, else ''.

    Raises ExportError where this adapter cannot be merged, saying which format carries it.
    """

    def __init__(self, source: ExportSource, onto: Onto, device: Device, with_adapter: bool = True) -> None:
        """`with_adapter` false: the base alone, for an adapter that stays apart."""
        bits = source.recipe.quantization.bits
        if onto == "dequantised" and bits == 8:
            raise ExportError(
                "This run's base model uses 8 bits, which also quantise activations, so no merged model replies "
                "exactly like the chat. Merge into the original weights, or export the adapter."
            )
        self.onto = onto
        self.dtype, _ = dtype_for(device, source.base.model_type)
        self.device = torch_device(device)
        config = source.base.config
        self._outline = meta_base(config, QuantizationSettings(bits=16), self.dtype)
        inner, outer = self._outline.get_input_embeddings(), self._outline.get_output_embeddings()
        tied = outer is not None and inner is not None and outer.weight is inner.weight
        self._quantised: dict[str, Linear4bit] = {}
        if onto == "dequantised" and bits == 4:
            held = meta_base(config, source.recipe.quantization, self.dtype)
            self._quantised = {
                name: module
                for name, module in held.named_modules()
                if isinstance(module, Linear4bit) and _is_for_text(name, self._outline)
            }
        self.tensors, self.others = _stored(self._outline, source.base_folder, tied)
        self._adapter = source.adapter / "adapter_model.safetensors"
        self.layers: dict[str, Any] = {}
        self.trained_whole: set[str] = set()
        if not with_adapter:
            return
        adapted = _with_adapter(self._outline, source.adapter)
        self.layers, self.trained_whole = dict(lora_layers(adapted)), _trained_whole(adapted)
        _refuse_what_cannot_be_merged(self.layers, self.trained_whole, self._outline, tied)

    @property
    def config(self) -> Any:
        """The base's configuration, as transformers reads it."""
        return self._outline.config

    def update(self, module: str) -> Update | None:
        """The adapter of `module`; None where it has none."""
        layer = self.layers.get(module)
        if layer is None:
            return None
        parts = {"a": "lora_A.weight", "b": "lora_B.weight"}
        if ADAPTER in layer.lora_magnitude_vector:
            parts["magnitude"] = "lora_magnitude_vector"
        read = {part: self._of_adapter(f"{module}.{key}") for part, key in parts.items()}
        return Update(read["a"], read["b"], float(layer.scaling[ADAPTER]), read.get("magnitude"))

    def _of_adapter(self, key: str) -> torch.Tensor:
        with safe_open(self._adapter, framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(f"base_model.model.{key}")
        return tensor.float()

    def is_changed(self, stored: Stored) -> bool:
        """Whether `stored` is otherwise in the merged model than in the base's files."""
        module = stored.name.rpartition(".")[0]
        weight = stored.name.endswith(".weight")
        return stored.name in self.trained_whole or (weight and (module in self.layers or module in self._quantised))

    def merged(self, stored: Stored) -> torch.Tensor:
        """The tensor as the merged model has it, on the CPU: in fp32 where it is changed, else as it is stored."""
        if stored.name in self.trained_whole:
            return self._of_adapter(stored.name)
        with safe_open(stored.file, framework="pt") as opened:
            weight: torch.Tensor = opened.get_tensor(stored.key)
        if not self.is_changed(stored):
            return weight
        module = stored.name.rpartition(".")[0]
        layer = self.layers.get(module)
        outline = layer.get_base_layer() if layer is not None else self._outline.get_submodule(module)
        turned = isinstance(outline, Conv1D)
        weight = weight.t() if turned else weight
        weight = self._as_held(weight, self._quantised.get(module))
        update = self.update(module)
        if update is not None:
            weight = update.added_to(weight)
        return weight.t() if turned else weight

    def _as_held(self, weight: torch.Tensor, quantised: Linear4bit | None) -> torch.Tensor:
        """`weight` (out, in) as the chat computes with it, in fp32 on the CPU; quantised on the chat's own device."""
        held = weight.to(self.dtype)
        if quantised is not None:
            like = quantised.weight
            packed = Params4bit(
                held.contiguous(),
                requires_grad=False,
                quant_type=like.quant_type,
                blocksize=like.blocksize,
                compress_statistics=like.compress_statistics,
                quant_storage=like.quant_storage,
            ).to(self.device)
            held = dequantize_4bit(packed.data, packed.quant_state).cpu()
        return held.float()


def _with_adapter(outline: Any, folder: Path) -> PeftModel:
    """The outline of base and adapter, as PEFT lays it over: which layers have one, of which rank and scale."""
    try:
        return PeftModel(outline, PeftConfig.from_pretrained(folder), ADAPTER, low_cpu_mem_usage=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = telling_line(error)
        raise ExportError(f"The adapter cannot be read: {said}.") from None


def _stored(outline: Any, folder: Path, tied: bool) -> tuple[list[Stored], list[Stored]]:
    """The tensors of the files in `folder` that the model loads, and the others. Raises ExportError."""
    wanted = {name for name, _ in outline.named_parameters(remove_duplicate=False)}
    kept, name_of = wanted | set(outline.state_dict()), _names_in_model(outline)
    ends = {_name_in(outline, outline.get_output_embeddings()): _name_in(outline, outline.get_input_embeddings())}
    copies = {f"{head}.weight": f"{inner}.weight" for head, inner in ends.items()} if tied else {}
    found: dict[str, Stored] = {}
    others: list[Stored] = []
    seen: set[str] = set()
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (it is no dict)
                if key in seen:
                    raise ExportError(
                        f"Two files of the base model contain {key}. Download the base model again. {ADAPTER_CAN}"
                    )
                seen.add(key)
                name, view = name_of(key), opened.get_slice(key)
                about = (file, tuple(view.get_shape()), DTYPES[view.get_dtype()])
                if name in copies or name in found:
                    others.append(Stored(key, copies.get(name, name), *about))
                elif name in kept:
                    found[name] = Stored(key, name, *about)
                else:
                    others.append(Stored(key, "", *about))
    missing = sorted(wanted - set(found) - set(copies))
    if missing:
        raise ExportError(
            f"This model cannot be merged: its files store {missing[0]} in a different form than the model uses, as "
            f"in mixtures of experts."
            f" {ADAPTER_CAN}"
        )
    return list(found.values()), others


def _is_for_text(name: str, outline: Any) -> bool:
    """Whether a module is of the part that reads and writes text, by what transformers says that is."""
    if outline.config.get_text_config() is outline.config:
        return True
    decoder = _name_in(outline, outline.get_decoder())
    return not decoder or name.startswith(f"{decoder}.") or name == _name_in(outline, outline.get_output_embeddings())


def _name_in(outline: Any, module: Any) -> str:
    """What `module` is called in the outline; '' where it is not in it."""
    return next((name for name, each in outline.named_modules() if each is module), "")


def _names_in_model(outline: Any) -> Callable[[str], str]:
    """transformers' way from a tensor's name in files to that in the model; '' where files hold it in another form."""
    transforms = get_model_conversion_mapping(outline)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    state, prefix = outline.state_dict(), outline.base_model_prefix

    def name_of(key: str) -> str:
        name, converted = rename_source_key(key, renamings, converters, prefix, state)
        return "" if converted else name

    return name_of


def _trained_whole(adapted: PeftModel) -> set[str]:
    """The parameters of modules that were trained whole, by their names in the base."""
    found: set[str] = set()
    for name, module in adapted.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            inner = name.removeprefix("base_model.model.")
            parameters = module.modules_to_save[ADAPTER].named_parameters()
            found |= {f"{inner}.{part}" for part, _ in parameters}
    return found


def _refuse_what_cannot_be_merged(layers: dict[str, Any], whole: set[str], outline: Any, tied: bool) -> None:
    """Raise ExportError for adapters of other kinds than these sums know."""
    for name, layer in layers.items():
        if type(layer) is not Linear or layer.lora_bias.get(ADAPTER):
            raise ExportError(f"The adapter of {name} is of a type that cannot be merged. {ADAPTER_CAN}")
    inner = _name_in(outline, outline.get_input_embeddings())
    head = _name_in(outline, outline.get_output_embeddings())
    if tied and f"{head}.weight" in whole and f"{inner}.weight" not in whole:
        raise ExportError(
            f"The head was trained separately from the embeddings it is tied to, which a merged model cannot "
            f"represent. "
            f"{ADAPTER_CAN}"
        )
