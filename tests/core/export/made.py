"""Runs for the export's tests: a base, and an adapter over it of random weights, as a trained run leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.export.shared.source import ExportSource, find_export_source
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.workspace import Workspace
from tests.tiny import chat_rows, write_jsonl

NAME = "Nïghtly: run/№1"


def run_with_adapter(workspace: Workspace, base: str, **settings: Any) -> Run:
    """A finished run over `base` whose adapter says something of its own. `settings` are a recipe's, by dotted key."""
    import torch

    from core.basemodel.find import find_model
    from core.data.rendering.template import Template
    from core.model.load import attach_lora, load_base, load_tokenizer
    from core.system.hardware import Device

    data = write_jsonl(workspace.datasets / "rows.jsonl", chat_rows(60))
    recipe = make_recipe({"model": base, "name": NAME, "data.path": str(data), "lora.rank": 4, **settings})
    run = create_run(workspace, recipe, {"file": str(data), "sha256": "0" * 64, "name": "rows.jsonl"}, "finished")
    found = find_model(base)
    model = load_base(found, recipe.quantization, Device("cpu", "CPU", 2**34, 2**33))
    torch.manual_seed(1)
    adapted = attach_lora(model, recipe.lora, torch.float32)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn_like(parameter) * (0.05 if "lora_" in name else 0.02)
            parameter.data += noise.abs() if "magnitude" in name else noise
    adapted.save_pretrained(run.adapter)
    tokenizer = load_tokenizer(found)
    Template(tokenizer, recipe.data)
    tokenizer.save_pretrained(run.adapter)
    return run


def source_with_adapter(folder: Path, base: str, **settings: Any) -> ExportSource:
    """`run_with_adapter` in a workspace below `folder`, ready to be exported."""
    return find_export_source(run_with_adapter(Workspace.open(folder / "workspace"), base, **settings))


def same_answers(source: ExportSource, artefact: dict[str, Any], way: str = "dequantised", prompts: int = 4) -> Any:
    """Ask the export and its reference in this process; `verified`'s numbers."""
    from core.export.proof.verify import job
    from core.export.proof_worker import compare

    return compare(job(source, artefact, way, "float32", most=prompts, new_tokens=8))
