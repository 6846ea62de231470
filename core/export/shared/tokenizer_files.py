"""What stands beside exported weights: tokenizer, chat template, generation config, and the model's own config."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from core.basemodel.find import TEMPLATE_FILE
from core.data.rendering.template import require_template
from core.export.shared.names import without_paths
from core.export.shared.source import ExportSource
from core.model.generation_config import plain_generation
from core.model.load import load_tokenizer
from core.model.meta import without_pad_beyond
from core.model.vocabulary import pad_of
from core.untrusted.template_marks import plain_template
from core.workspace import read_json, write_json

# In the adapter's folder: what is not the tokenizer's.
_OTHERS = ("adapter_", "README", "manifest.json", "training_args")


def write_companions(source: ExportSource, folder: Path, dtype: torch.dtype) -> None:
    """The settings of a merged model whose weights are in `dtype`."""
    config = without_pad_beyond(read_json(source.base_folder / "config.json"))
    dropped = ("quantization_config", "torch_dtype", "_name_or_path", "auto_map")
    kept = {key: value for key, value in without_paths(config).items() if key not in dropped}
    write_json(folder / "config.json", {**kept, "dtype": str(dtype).removeprefix("torch.")})
    write_tokenizer(source, folder)
    write_generation_config(source, folder)


def write_tokenizer(source: ExportSource, folder: Path) -> None:
    """The tokenizer and chat template that were trained with, the template without its marks for training."""
    for file in tokenizer_files(source.tokenizer):
        if file.name == TEMPLATE_FILE:
            (folder / TEMPLATE_FILE).write_text(plain_template(file.read_text(encoding="utf-8")), encoding="utf-8")
        elif file.name == "tokenizer_config.json":
            settings = without_paths(read_json(file))
            if isinstance(settings.get("chat_template"), str):
                settings["chat_template"] = plain_template(settings["chat_template"])
            (folder / file.name).write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
        else:
            shutil.copyfile(file, folder / file.name)


def exported_template(tokenizer: Any) -> str:
    """Its chat template as other programs get it."""
    return plain_template(tokenizer.chat_template)


def with_tokenizer(source: ExportSource) -> ExportSource:
    """`source` with the tokenizer that its run trains with; one that was cut short early has not saved it yet."""
    if source.tokenizer_at is not None:
        return source
    folder, tokenizer = source.run.dir / "tokenizer", load_tokenizer(source.base)
    require_template(tokenizer, source.recipe.data)
    tokenizer.save_pretrained(folder)
    return replace(source, tokenizer_at=folder)


def tokenizer_files(folder: Path) -> Iterable[Path]:
    """The tokenizer's own files among those beside an adapter."""
    return (file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(_OTHERS))


def write_generation_config(source: ExportSource, folder: Path) -> None:
    """The base's settings for generation, as far as the chat obeys them: an export is to answer as the chat does.

    Every token that ends a reply in the chat ends it elsewhere too. Ways to search that the base's file asks for, such
    as beams, and programs of a hub are left out here as they are there (core/model/generation_config.py).
    """
    tokenizer = load_tokenizer(source.base, source.tokenizer)
    values = _generation(source).to_diff_dict()
    values["eos_token_id"] = stop_tokens(source, tokenizer)
    values["pad_token_id"] = pad_of(source.base, tokenizer)
    write_json(folder / "generation_config.json", values)


def stop_tokens(source: ExportSource, tokenizer: Any) -> list[int]:
    """Every token that ends a reply in the chat: the tokenizer's and the model's own."""
    ends = _generation(source).eos_token_id
    ids = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    return sorted(token for token in ids if token is not None)


def _generation(source: ExportSource) -> GenerationConfig:
    """What the chat obeys of the base's settings; where it has no file of them, transformers takes its config's."""
    given = read_json(source.base_folder / "generation_config.json")
    if not isinstance(given, dict):
        config = AutoConfig.from_pretrained(source.base_folder, trust_remote_code=False)
        return plain_generation(GenerationConfig.from_model_config(config))
    known = GenerationConfig()
    for name in vars(known).keys() & given.keys():  # as they are: its own reading checks what is not obeyed here
        setattr(known, name, given[name])
    return plain_generation(known)
