"""What the files beside weights may say: read within bounds, refused where they ask for more than a model needs.

A config.json, a tokenizer_config.json and an adapter_config.json come from strangers, and transformers and PEFT obey
them: numbers become memory, names become classes, patterns are matched, attention may be fetched from a hub. Imports no
torch.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from core.errors import ModelError
from core.untrusted.paths import is_plain
from core.untrusted.patterns import refuse_endless_patterns

MOST_BYTES, DEEPEST = 50_000_000, 40
_POINTER = b"version https://git-lfs"
# The most that the numbers of any known model come to, with room to grow.
_MOST = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "head_dim", "num_attention_heads", "n_head"), 1_000_000),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "vocab_size", "n_positions"), 20_000_000),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "num_key_value_heads"), 100_000),
}
_MOST_OTHERS = 2**63
_GROUPS = ("text_config", "auto_map", "rope_scaling", "rope_parameters")
_ATTENTION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_OWN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention", "batched_mm", "grouped_mm")
_DTYPE = re.compile(r"(torch\.)?(auto|half|float|double|bfloat16|u?int\d+|float\d+\w*)", re.ASCII)
_TOKENIZER_CLASS = re.compile(r"(?!Auto)[A-Za-z]\w*(Tokenizer|TokenizerFast|Backend)", re.ASCII)
_MOST_RANK = 4096


def read_settings(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises ModelError: not readable, no object, too large, nested too deep."""
    name = f"{file.parent.name}/{file.name}"
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ModelError(f"{name} is far too large for a model's settings. Use another copy of the model.")
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{name} is not valid JSON. Download the model again.") from None
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{name} contains no settings. Download the model again.")
    for depth, _, _ in _entries(value):
        if depth > DEEPEST:
            raise ModelError(f"{name} is nested too deeply for a model's settings. Use another copy of the model.")
    return value


def _entries(value: Any) -> Iterator[tuple[int, str, Any]]:
    """Every value in `value`, however deep: (how deep, its key or that of its list, itself)."""
    waiting: list[tuple[int, str, Any]] = [(0, "", value)]
    while waiting:
        depth, key, each = waiting.pop()
        yield depth, key, each
        if isinstance(each, dict):
            waiting += [(depth + 1, str(name), inner) for name, inner in each.items()]
        elif isinstance(each, list):
            waiting += [(depth + 1, key, inner) for inner in each]


def refuse_config(config: dict[str, Any], label: str) -> None:
    """Raise ModelError for a config.json that is no language model's, is quantised, or would do harm when obeyed."""
    if "model_type" not in config:
        raise ModelError(f"{label}: its config.json names no model_type, so it is not a language model.")
    kind = config["model_type"]
    if not isinstance(kind, str) or not re.fullmatch(r"[\w.-]{1,100}", kind, re.ASCII):
        raise ModelError(f"{label}: the model_type in its config.json is not a name. Use another copy of the model.")
    for key in _GROUPS:
        if not isinstance(config.get(key), (dict, type(None))):
            _refuse_value(key, config[key], label)
    for _, key, value in _entries(config):
        if key in ("quantization_config", "compression_config") and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            how = str(method or "in a way of its own")[:40]
            raise ModelError(
                f"{label} is already quantised ({how}). Use the 16-bit original: Nibble quantises it itself."
            )
        if _fetches(key, value):
            _refuse_fetching(key, value, label)
        if _is_odd(key, value):
            _refuse_value(key, value, label)
    _refuse_class(config.get("tokenizer_class"), label, "config.json")


def _fetches(key: str, value: Any) -> bool:
    """Whether the setting has transformers fetch kernels from a hub."""
    if key in ("use_kernels", "kernel_config"):
        return bool(value)
    return bool(_ATTENTION.fullmatch(key)) and isinstance(value, str) and value not in _OWN_ATTENTION


def _is_odd(key: str, value: Any) -> bool:
    """Whether no model has such a value, and obeying it would take the memory, or something else by its name."""
    if key in ("dtype", "torch_dtype") and isinstance(value, str):
        return not _DTYPE.fullmatch(value)
    if isinstance(value, int):
        return not -_MOST_OTHERS < value <= _MOST.get(key, _MOST_OTHERS)
    return key in _MOST and not isinstance(value, (float, list, dict, type(None)))


def _refuse_fetching(key: str, value: Any, label: str) -> None:
    raise ModelError(
        f"{label} asks for code to be downloaded at run time ({key} {str(value)[:60]!r} in its config.json), which "
        f"Nibble does not allow. Remove that line in a copy, or choose another model."
    )


def _refuse_value(key: str, value: Any, label: str) -> None:
    raise ModelError(
        f"{label}: {key} in its config.json is {str(value)[:40]!r}, which is not a valid value. Use another copy of "
        f"the model."
    )


def _refuse_class(name: Any, label: str, file: str) -> None:
    """The name of a class is looked up among all of transformers' own: only tokenizers may be asked for."""
    if name is not None and not (isinstance(name, str) and _TOKENIZER_CLASS.fullmatch(name)):
        raise ModelError(
            f"{label}: {file} names {str(name)[:60]!r} as its tokenizer, which is not valid. Use another copy."
        )


def refuse_oversized(config: dict[str, Any], elements: int, label: str) -> None:
    """Raise ModelError where `config` describes a model far larger than the `elements` of its files."""
    inner = config.get("text_config")
    sizes = {**config, **inner} if isinstance(inner, dict) else config

    def number(*names: str) -> int:
        return next((sizes[name] for name in names if isinstance(sizes.get(name), int)), 0)

    width = number("hidden_size", "n_embd", "d_model")
    layers = number("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    described = width * (layers * (width + number("intermediate_size", "ffn_dim", "n_inner")) + number("vocab_size"))
    if elements and described > 20 * elements + 10**7:
        raise ModelError(
            f"{label}: its config.json describes a model far larger than its files. Use another copy of the model."
        )


def refuse_tokenizer(folder: Path, label: str) -> None:
    """Raise ModelError where the tokenizer's files in `folder` name other files, or what is no tokenizer."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return
    settings = read_settings(file)
    _refuse_class(settings.get("tokenizer_class"), label, file.name)
    others = settings.get("fast_tokenizer_files") or []
    named = others if isinstance(others, list) else [others]
    if settings.get("init_inputs") or not all(isinstance(name, str) and is_plain(name) for name in named):
        raise ModelError(f"{label}: {file.name} names files outside its folder. Use another copy of the model.")


def damaged_file(folder: Path) -> str | None:
    """The first of a model's files in `folder` that cannot be read, in words; None where all can."""
    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".safetensors":
                with file.open("rb") as opened:
                    if opened.read(len(_POINTER)) == _POINTER:
                        return f"{file.name} is only Git LFS's pointer to the file: fetch it with git lfs pull"
                with safe_open(file, framework="numpy"):
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_bytes())
        except (SafetensorError, ValueError, RecursionError, OSError):
            return f"{file.name} is damaged or incomplete"
    return None


def refuse_adapter_settings(config: dict[str, Any], name: str, modules: Iterable[str] = ()) -> None:
    """Raise ModelError for an adapter_config.json that imports modules, takes memory, or is matched without end.

    `modules` are names that its patterns will be matched with (core/untrusted/patterns.py).
    """
    if config.get("megatron_config") or config.get("megatron_core", "megatron.core") not in (None, "megatron.core"):
        raise ModelError(f"The adapter {name} asks to load other software (megatron), which Nibble does not allow.")
    for key in ("r", "rank_pattern"):
        for _, _, rank in _entries(config.get(key)):
            if not isinstance(rank, (dict, type(None))) and not (isinstance(rank, int) and 0 < rank <= _MOST_RANK):
                raise ModelError(f"The adapter {name} says {key} {str(rank)[:20]}; allowed: 1 to {_MOST_RANK:,}.")
    for key, most in (("layers_to_transform", _MOST["num_layers"]), ("trainable_token_indices", _MOST["vocab_size"])):
        for _, _, number in _entries(config.get(key)):
            if not isinstance(number, (dict, list, type(None))) and not (
                isinstance(number, int) and 0 <= number < most
            ):
                raise ModelError(f"The adapter {name} says {key} {str(number)[:20]}; allowed: 0 to {most - 1:,}.")
    tokens = config.get("trainable_token_indices")
    groups = list(tokens.values()) if isinstance(tokens, dict) else [] if tokens is None else [tokens]
    if not all(isinstance(group, list) for group in groups):
        raise ModelError(f"The adapter {name} says trainable_token_indices {str(tokens)[:20]}, which are no lists.")
    refuse_endless_patterns(config, name, modules)
