"""An adapter lies where text can teach it: never in a tower for pictures, unless its layers are asked for by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel

from core.basemodel.find import find_model
from core.errors import ModelError
from core.memory.meta_model import meta_model
from core.model.fit import refuse_misfit
from core.model.load import attach_lora, load_base
from core.model.lora_config import target_modules, targets_note
from core.model.lora_init import lora_layers
from core.model.text_reach import reach
from core.recipe import LoraSettings, QuantizationSettings
from core.runs.store import Run
from core.runs.tail import Tail
from core.system.hardware import Device
from core.train.ending import warn_of_unlearned
from tests.core.basemodel.pictures import CONFIGS, tiny_of_pictures
from tests.tiny import tiny_tokenizer

CPU = Device("cpu", "CPU", 2**34, 2**33)
# Where each holds what is not for text: by transformers' names.
OUTSIDE = ("vision_tower", "visual", "vision_model", "multi_modal_projector", "embed_vision", "vision_embed_tokens")


def _adapted(model: PreTrainedModel, **lora: Any) -> dict[str, Any]:
    return dict(lora_layers(attach_lora(model, LoraSettings(rank=4, alpha=8, **lora), torch.float32)))


def _learns(model: Any) -> dict[str, bool]:
    """By adapter: whether a step on text moves it. B begins at zero, so its gradient tells."""
    ids = torch.arange(3, 40)[None]
    model.train()(input_ids=ids, labels=ids).loss.backward()
    grads = {name: each.grad for name, each in model.named_parameters() if "lora_B" in name}
    return {name: grad is not None and bool(grad.abs().sum() > 0) for name, grad in grads.items()}


@pytest.mark.parametrize("targets", ["all-linear", "attention", "q_v", ["q_proj", "v_proj"]])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_adapter_learns_from_text(kind: str, targets: Any) -> None:
    model = tiny_of_pictures(kind)
    if kind == "gemma3":  # which asks for the kind of every token when it trains: text, all of it
        forward = model.forward
        model.forward = lambda input_ids, **more: forward(input_ids, token_type_ids=torch.zeros_like(input_ids), **more)
    if kind == "fuyu" and targets != "all-linear":
        targets = ["query_key_value"]
    adapted = attach_lora(model, LoraSettings(rank=4, alpha=8, targets=targets), torch.float32)
    names = [name for name, _ in lora_layers(adapted)]
    assert names and not [name for name in names if any(part in name.split(".") for part in OUTSIDE)]
    learned = _learns(adapted)
    assert learned and all(learned.values()), [name for name, moved in learned.items() if not moved]


# Linear layers outside of the language model, counted by hand from the configs: a tower's layer has q, k, v, out and
# two of an MLP; Llama 3.2's attention to pictures q, k, v, o, behind it gate, up, down.
@pytest.mark.parametrize(
    ("kind", "count", "where"),
    [
        ("mistral3", 2 * 7 + 3, "model.vision_tower"),
        ("qwen2_5_vl", 2 + 3 + 2, "model.visual"),
        ("mllama", 7, "model.layers"),
        ("fuyu", 1, "model.vision_embed_tokens"),
        ("llama4", 0, ""),
        ("qwen3_5", 0, ""),
    ],
)
def test_what_is_left_out_is_counted_and_named(kind: str, count: int, where: str) -> None:
    model = tiny_of_pictures(kind)
    assert len(reach(model).unreached) == count, sorted(reach(model).unreached)
    said = targets_note(model, LoraSettings())
    if not count:
        assert said == "" and (kind == "llama4" or target_modules(model, LoraSettings()) == "all-linear")
        return
    assert said.startswith(f"Text never reaches {count} linear layer") and where in said


def test_a_layer_outside_is_adapted_where_it_is_asked_for_by_name() -> None:
    asked = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
    model = tiny_of_pictures("gemma3")
    names = list(_adapted(model, targets=["v_proj", asked]))
    assert asked in names and sum("v_proj" in name for name in names) == 2
    model = tiny_of_pictures("gemma3")
    assert targets_note(model, LoraSettings(targets=["v_proj", asked])).startswith(
        "Text never reaches 1 of the layers that lora.targets names (model.vision_tower.encoder.layers): an adapter"
    )
    with pytest.raises(ModelError, match="no linear layer called nothing; it has q_proj, k_proj, v_proj, o_proj, gate"):
        _adapted(tiny_of_pictures("gemma3"), targets=["nothing"])


def test_the_plan_counts_the_adapters_that_are_trained(tmp_path: Path) -> None:
    model = tiny_of_pictures("gemma3")
    planned = meta_model(
        model.config.to_dict(), QuantizationSettings(bits=16), LoraSettings(rank=4), torch.float32, torch.float32
    )
    real = attach_lora(model, LoraSettings(rank=4), torch.float32)
    trained = [{name for name, each in one.named_parameters() if each.requires_grad} for one in (planned, real)]
    assert trained[0] == trained[1] and len(trained[0]) == 2 * 14


@pytest.mark.parametrize("kind", ["gemma3", "llama4", "mllama", "qwen3_5"])
def test_files_with_a_tower_are_opened_for_text_as_transformers_opens_them(kind: str, tmp_path: Path) -> None:
    """The files are the whole model's; the class for text reads its part of them, and says what it leaves."""
    from transformers import AutoModelForCausalLM

    tiny_of_pictures(kind, AutoModelForImageTextToText).save_pretrained(tmp_path)
    tiny_tokenizer(tmp_path)
    found = find_model(str(tmp_path))
    fit = refuse_misfit(found)
    assert kind in ("gemma3", "qwen3_5") or "that it does not use" in fit.note
    ours = load_base(found, QuantizationSettings(bits=16), CPU)
    plain, info = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(ours(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5)


def test_adapters_that_no_row_reached_are_told_of_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path)
    asked = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
    model = attach_lora(tiny_of_pictures("gemma3"), LoraSettings(rank=4, targets=["v_proj", asked]), torch.float32)
    for name, each in model.named_parameters():
        if "lora_B" in name and "vision" not in name:
            torch.nn.init.ones_(each)
    warn_of_unlearned(run, model)
    (said,) = Tail(tmp_path / "events.jsonl").read()
    assert said["kind"] == "warning" and said["message"].startswith("1 of 3 adapter layers learned nothing")
