"""Builds the model that trains and chats: loaded in 4, 8 or 16 bits, with adapters attached. Nothing else does."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit
from peft import PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch.utils._pytree import tree_map
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from core.basemodel.download import bring_settings
from core.basemodel.find import FoundModel
from core.basemodel.store_index import StoreError
from core.errors import ModelError, RecipeError
from core.model import bnb_cpu_blocks, moe_lora, moe_quantizer
from core.model.attention import FLASH, refuse_attention, repeat_keys
from core.model.fit import refuse_misfit, refuse_random
from core.model.generation_config import plain_generation
from core.model.hf_seam import Ended
from core.model.lora_config import lora_config
from core.model.lora_init import lora_layers, start_from_adapter, start_loftq, start_pissa
from core.model.meta import without_pad_beyond
from core.model.moe import NAME as OUR_EXPERTS
from core.model.moe import experts_of, fused_weights, shape_of
from core.model.remote_code import admit
from core.model.stored import KINDS as STORED_ON
from core.model.stored import Stores, load_stored
from core.model.varlen import flash_is_built
from core.recipe import LoraSettings, QuantizationSettings
from core.system.compute_dtype import compute_dtype
from core.system.hardware import Device
from core.text.library_errors import Listening, telling_line
from core.untrusted.adapter_files import refuse_adapter_files
from core.untrusted.chat_templates import bound_templates
from core.untrusted.model_files import damaged_file, refuse_tokenizer

# What transformers raises for a model that it cannot load.
_LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError)
# What a RuntimeError says where memory ran out; the last by cuBLAS and cuDNN, for what they work in.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "status_alloc_failed")

bnb_cpu_blocks.install()
moe_quantizer.install()
moe_lora.install()


def torch_device(device: Device) -> torch.device:
    """The torch device for `device`; the worker has made the chosen card the only visible one."""
    return torch.device("cuda:0" if device.kind == "cuda" else device.kind)


def dtype_for(device: Device, model_type: str = "") -> tuple[torch.dtype, str]:
    """The dtype to compute in on `device`, for a model of that type where there is one, and the reason."""
    name, because = compute_dtype(device, model_type)
    return getattr(torch, name), because


def load_tokenizer(found: FoundModel, folder: Path | None = None) -> Any:
    """The tokenizer of a base model, or the one saved with an adapter in `folder`. Raises ModelError."""
    source = folder or found.folder or bring_settings(found)
    bound_templates()
    admit(found)
    refuse_tokenizer(source, found.label)
    heard = Listening("transformers")
    try:
        with heard:
            return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # whatever a tokenizer's class says to files of strangers
        raise ModelError(f"The tokenizer of {found.label} cannot be loaded: {_reason(error, source, heard)}.") from None


def load_base(
    found: FoundModel,
    settings: QuantizationSettings,
    device: Device,
    attention: str = "auto",
    sharded: bool = False,
    stores: Stores | None = None,
) -> PreTrainedModel:
    """The base model on `device`, frozen, in the bits of `settings`. Raises ModelError, or RecipeError for `attention`.

    The model is loaded in the compute dtype itself: bitsandbytes' backward pass dequantises to the dtype that it
    was loaded in (QLoRA, section 3: 4-bit storage, 16-bit computation). In 16 bits it is what computes as well: on a
    device that computes in fp32 it takes 32. `sharded`: in ordinary memory, ready for core/train/sharding.py.
    `stores`: open it from its store, or make one (core/model/stored.py); its content is the same bit for bit.
    """
    dtype, _ = dtype_for(device, found.model_type)
    implementation = attention_implementation(attention, device.kind, dtype)
    if found.folder is None:
        raise ModelError(f"{found.label} is not on this machine yet. Download it first.")
    admit(found)
    if device.kind == "cuda" and not (dtype == torch.bfloat16 and flash_is_built()):
        repeat_keys()
    # bitsandbytes logs its casts to fp16 at every product of every step.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    place = torch.device("cpu") if sharded else torch_device(device)
    bits = quantization_config(settings, dtype, dtype if sharded else torch.uint8)
    load = partial(_load, found, bits, place, dtype, implementation)
    if stores is None or sharded or device.kind not in STORED_ON:
        refuse_misfit(found)
        model, info = load()
    else:
        model, info = load_stored(load, found, settings, (place, dtype), stores)
    refuse_random(model, info, found.label)
    # The base that the adapter will name: its id where it has one, not this machine's folder.
    model.name_or_path = model.config.name_or_path = found.source
    model.config._commit_hash = found.revision
    model.generation_config = plain_generation(model.generation_config)
    keep_quantisation_exact(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _load(
    found: FoundModel,
    bits: BitsAndBytesConfig | None,
    place: torch.device,
    dtype: torch.dtype,
    implementation: str | None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """`from_pretrained`: the model, and what became of each tensor of its files. Raises ModelError."""
    assert found.folder is not None
    no_pad = {} if without_pad_beyond(found.config) == found.config else {"pad_token_id": None}
    heard = Listening("transformers")
    try:
        with heard:
            return AutoModelForCausalLM.from_pretrained(
                found.folder,
                quantization_config=bits,
                dtype=dtype,
                device_map={"": place},
                attn_implementation=implementation,
                experts_implementation=OUR_EXPERTS,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **no_pad,
            )
    except (StoreError, Ended):
        raise
    except Exception as error:  # whatever an architecture's code says to files of strangers
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{found.label} cannot be loaded: {_reason(error, found.folder, heard)}.") from None


def attention_implementation(wanted: str, device_kind: str, dtype: torch.dtype) -> str | None:
    """transformers' name for `train.attention`; None leaves the choice to it. Raises RecipeError where it cannot be."""
    if wanted != FLASH:
        return None if wanted == "auto" else wanted
    refuse_attention(wanted, device_kind)
    if dtype == torch.float32 or not is_flash_attn_2_available():
        raise RecipeError(
            "train.attention: flash_attention_2 needs the package flash-attn, which is not installed, and a GPU with "
            "compute capability 8.0 or higher. Choose auto, which needs neither."
        )
    return wanted


def quantization_config(
    settings: QuantizationSettings, dtype: torch.dtype, storage: torch.dtype = torch.uint8
) -> BitsAndBytesConfig | None:
    """The recipe's quantisation in transformers' terms, computing in `dtype`; None where nothing is quantised.

    `storage` is the dtype that tensors of packed 4-bit numbers go by; their bits are the same in any.

    8 bits are LLM.int8() with its authors' threshold of 6 for outliers (arXiv 2208.07339).
    """
    if settings.bits == 16:
        return None
    if settings.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.type,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=storage,
    )


def quantised(base: PreTrainedModel) -> tuple[int, int]:
    """(parameters in 4 or 8 bits, parameters of all weight matrices), the embeddings and the head left out.

    transformers quantises plain linear layers, not Falcon's own kind; fused experts are ours (moe_quantizer.py).
    """
    ends = {id(each.weight) for each in (base.get_input_embeddings(), base.get_output_embeddings()) if each is not None}
    layers = [module for module in base.modules() if isinstance(module, (Linear4bit, Linear8bitLt))]
    held = sum(layer.in_features * layer.out_features for layer in layers)
    theirs = {id(layer.weight) for layer in layers}
    for _, experts in experts_of(base):
        packed = [each for each in map(experts.get_parameter, fused_weights(experts)) if isinstance(each, Params4bit)]
        held += sum(shape_of(each).numel() for each in packed)
        theirs |= set(map(id, packed))
    others = [each for each in base.parameters() if each.ndim > 1 and id(each) not in ends | theirs]
    return held, held + sum(each.numel() for each in others)


def keep_quantisation_exact(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack weights for inference on CPUs with AVX512-BF16.

    On the first forward pass in eval mode it would replace the doubly quantised constants by bf16 ones, for good,
    and its kernel for that layout has no backward pass: an evaluation in mid-run would end the training in silence
    (bitsandbytes 0.50.2, `Linear4bit.forward`).
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def attach_lora(
    model: PreTrainedModel, settings: LoraSettings, dtype: torch.dtype, start: Path | None = None
) -> PeftModel:
    """Attach LoRA adapters as `settings` says: fresh ones, or with the weights in the folder `start`.

    Fresh ones have a random A and a zero B, so that the first output is the base's; with LoftQ it is nearer to the
    original model's. They are trained in `dtype` where they start from zero, else in fp32: beside an existing weight
    a step is too small for bf16 (its spacing at 1 is 0.008). Raises ModelError.
    """
    config, computes_in = lora_config(model, settings), model.dtype
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"No adapter can be attached to this model: {telling_line(error)}.") from None
    if settings.init == "pissa":
        start_pissa(adapted, settings.rank)
    elif settings.init == "loftq" and model.device.type != "meta":
        start_loftq(adapted)
    if start is not None:
        start_from_adapter(adapted, start)
    fresh = settings.init == "default" and settings.start_from is None
    from_zero = fresh and not settings.dora and not settings.extra_modules
    cast_adapters(adapted, dtype if from_zero else torch.float32)
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            _cast_at_the_border(module.modules_to_save["default"], computes_in)
    return adapted


def _cast_at_the_border(trained: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast the inputs of a module that is trained in fp32, and cast its outputs back to the model's `dtype`."""

    def cast(values: Any, to: torch.dtype) -> Any:
        return tree_map(
            lambda each: each.to(to) if torch.is_tensor(each) and each.is_floating_point() else each, values
        )

    own = next(trained.parameters()).dtype
    if own != dtype:
        trained.register_forward_pre_hook(lambda _, given: cast(given, own))
        trained.register_forward_hook(lambda _, given, answer: cast(answer, dtype))


def parameters_trained(model: torch.nn.Module, settings: LoraSettings) -> int:
    """How many numbers training changes in `model`: not the half of a PiSSA adapter that is frozen."""
    every = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if settings.init != "pissa":
        return every
    pairs = [layer for _, layer in lora_layers(model)]
    return every - sum(
        (layer.lora_A["default"].weight.numel() + layer.lora_B["default"].weight.numel()) // 2 for layer in pairs
    )


def cast_adapters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Bring the trainable parameters to the dtype that they are trained in."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def load_adapter(model: PreTrainedModel, folder: Path, name: str = "default") -> PeftModel:
    """The base `model` with the trained adapter in `folder` over it. Raises ModelError."""
    refuse_adapter_files(folder)
    try:
        return PeftModel.from_pretrained(model, folder, adapter_name=name)
    except _LOAD_ERRORS as error:
        raise ModelError(f"The adapter in {folder.name} cannot be loaded: {_reason(error, folder)}.") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: on a GPU, or on a CPU under its limit."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _NO_MEMORY)


def _reason(error: BaseException, folder: Path, heard: Listening | None = None) -> str:
    """The library's reason, and the damaged file of `folder` where there is one: libraries do not name it."""
    line, damaged = telling_line(error, heard), damaged_file(folder)
    return f"{damaged} ({line})" if damaged else line
