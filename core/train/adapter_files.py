"""Writes the adapter of a model in training, in PEFT's format, and reads nothing of the base."""

from pathlib import Path
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper


def write_adapter(model: Any, folder: Path) -> None:
    """Write what PEFT's `save_pretrained` would to `folder`, byte for byte.

    PEFT asks the whole model for its state first (peft 0.21, save_and_load.py, `get_peft_model_state_dict`), for which
    bitsandbytes packs every layer's constants into new tensors on the GPU (0.50, `Linear4bit._save_to_state_dict`):
    memory that a run at its limit does not have.
    """
    model.save_pretrained(folder, state_dict=_state(model))


def _state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Everything that PEFT might choose from, by name; what is frozen is only named."""
    named = dict(model.named_parameters(remove_duplicate=False))
    state = {name: each.detach() if each.requires_grad else each for name, each in named.items()}
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):  # with its buffers, if it has any
            state |= module.modules_to_save.state_dict(prefix=f"{name}.modules_to_save.")
    return state
