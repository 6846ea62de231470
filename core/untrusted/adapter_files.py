"""An adapter's files, before PEFT opens them: of a kind that can be used, within bounds, its weights safetensors only.

What is refused here is refused wherever an adapter is taken in or used, in the same words. Imports no torch.
"""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from core.errors import ModelError
from core.untrusted.model_files import damaged_file, read_settings, refuse_adapter_settings

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MERGE = "Merge it with the tool that made it, and choose the merged model."
# Kinds that learn what stands before the prompt, in no layer of the base.
_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE")
# How LoRA's matrices may begin so that the base is no longer the one that others use (PEFT's `init_lora_weights`).
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Variants of LoRA that compute otherwise than W + BA, or need more than the adapter's own files.
_VARIANTS = {
    "alora_invocation_tokens": "aLoRA, which works only after certain tokens",
    "arrow_config": "Arrow, which selects among other adapters not in its files",
    "monteclora_config": "MonteCLoRA, which samples its weights at random",
    "use_bdlora": "BD-LoRA, which is made for servers of several GPUs",
    "use_qalora": "QA-LoRA, which needs a base quantised by GPTQ",
    "velora_config": "VeLoRA, which needs its own backward pass",
}
# All that PEFT 0.21's LoraConfig reads.
KNOWN = frozenset(
    """
    task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r target_modules
    exclude_modules lora_alpha lora_dropout fan_in_fan_out bias use_rslora modules_to_save init_lora_weights
    layers_to_transform layers_pattern rank_pattern alpha_pattern megatron_config megatron_core
    trainable_token_indices loftq_config eva_config corda_config lora_ga_config use_dora velora_config
    alora_invocation_tokens use_qalora qalora_group_size monteclora_config layer_replication runtime_config
    lora_bias target_parameters use_bdlora arrow_config kasa_config ensure_weight_tying
    """.split()  # noqa: SIM905 (a list of them takes a screen)
)


def refuse_adapter_files(folder: Path) -> dict[str, Any]:
    """The settings of the adapter in `folder`. Raises ModelError where it is none, or is not safe to load.

    PEFT opens pickles where there is no safetensors file, and asks the Hub where there is no file at all.
    """
    missing = next((name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()), None)
    if missing is not None:
        raise ModelError(f"{folder.name} is not a loadable adapter: it contains no {missing}.")
    config = read_settings(folder / CONFIG)
    refuse_adapter_settings(config, folder.name, layers_of(folder))
    return config


def layers_of(folder: Path) -> list[str]:
    """The base's layers that the adapter in `folder` holds matrices for, by name; none where its file is damaged."""
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as opened:
            keys = list(opened.keys())
    except (SafetensorError, OSError):
        return []
    return list(dict.fromkeys(layer_of(key) for key in keys if ".lora_" in key))


def layer_of(key: str) -> str:
    """The base's layer that a tensor of an adapter's file is for.

    PEFT saves `base_model.model.<layer>.lora_A.weight`; where it wraps a layer more than once, for several weights of
    one module, `.base_layer` stands between.
    """
    return key.removeprefix(_PREFIX).partition(".lora_")[0].replace(".base_layer", "")


def refuse_kind(config: dict[str, Any], name: str) -> None:
    """Raise ModelError for an adapter that cannot be laid over a base here, with the reason: all but plain LoRA's."""
    kind = config.get("peft_type")
    if kind is None:
        raise ModelError(
            f"The adapter {name} is not in PEFT's format: its {CONFIG} names no peft_type, as MLX writes it. Convert "
            "it with the tool that made it."
        )
    if kind != "LORA":
        why = (
            "learns a prefix to the prompt rather than layer weights" if kind in _PROMPTS else "is computed differently"
        )
        raise ModelError(
            f"The adapter {name} is of the kind {str(kind)[:40]}, which {why}; only LoRA, rsLoRA and DoRA can be "
            f"used here."
            f" {_MERGE}"
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelError(f"The adapter {name} is for {str(config['task_type'])[:40]}, not for chat.")
    start = config.get("init_lora_weights")
    changed = isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE)
    if changed or config.get("layer_replication") or config.get("kasa_config"):
        why = f"init_lora_weights {start[:40]}" if isinstance(start, str) and changed else "layer_replication or KaSA"
        raise ModelError(
            f"The adapter {name} changes its base model ({why}), so it cannot share the base model with others. "
            f"{_MERGE}"
        )
    variant = next((key for key in _VARIANTS if config.get(key)), None)
    if variant is not None:
        raise ModelError(f"The adapter {name} is of {_VARIANTS[variant]} ({variant}). That cannot be used here.")
    _refuse_newer(config, name)


def _refuse_newer(config: dict[str, Any], name: str) -> None:
    """PEFT passes over what it does not know, though a newer one may have computed otherwise for it.

    What other tools note in the file, such as ms-swift's learning rates, says nothing on how the adapter computes.
    """
    made_by, here = str(config.get("peft_version") or ""), version("peft")
    unknown = sorted(key for key, value in config.items() if key not in KNOWN and value)
    if unknown and _numbers(made_by) > _numbers(here):
        raise ModelError(
            f"The adapter {name} was made by PEFT {made_by[:20]} and says {unknown[0][:40]}, which the installed "
            f"version ({here}) does not know. It would reply differently from how it was trained."
            f" {_MERGE}"
        )


def _numbers(text: str) -> list[int]:
    return [int(part[:9]) for part in re.findall(r"\d+", text.partition("@")[0])[:3]]


def refuse_damaged(folder: Path) -> None:
    """Raise ModelError for an adapter of which a file cannot be read."""
    damaged = damaged_file(folder)
    if damaged is not None:
        raise ModelError(f"The adapter {folder.name} cannot be read: {damaged}.")
