"""Memory as traced before the run, against the same count over a real NF4 run with Nibble's own trainer.

The models are small and random, of real architectures; their sizes, lengths, micro-batches, ranks and checkpointing
come from the seed, so nothing can be fitted to them. tensor_counter.py counts both sides, the trace on meta tensors
and the run on real ones, from the loaded model through two optimizer steps. With a GPU, plans are also compared with
what torch and NVML read.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import random
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from bench._memory_gpu import rows as gpu_rows
from core.recipe import Recipe, make_recipe

ARCHITECTURES = ("llama", "mistral", "qwen3", "gemma2", "gpt_neox", "opt", "phi3", "qwen3_moe")
SETTINGS_EACH = 4
BAR_PERCENT = 1.0


@dataclass(frozen=True)
class Case:
    """One architecture with one random choice of everything else."""

    config: dict[str, Any]
    recipe: Recipe
    lengths: list[int]
    micro_batch: int


@dataclass(frozen=True)
class Measured:
    """In bytes: the peak of the real run, the size of the model itself, and the same from the trace."""

    counted: int
    counted_model: dict[str, int]
    traced: int
    traced_model: dict[str, int]

    @property
    def error_percent(self) -> float:
        """The trace's error, in percent of the count."""
        return 100 * (self.traced / self.counted - 1)


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    draw = random.Random(seed)
    rows, measured = [], []
    for architecture in ARCHITECTURES:
        of_this = [measure(draw_case(architecture, draw)) for _ in range(SETTINGS_EACH)]
        worst = max(of_this, key=lambda each: abs(each.error_percent))
        name = f"peak traced, worst of {SETTINGS_EACH}: {architecture}"
        rows.append(_row(name, worst.traced / 1e6, "MB", worst.counted / 1e6, None, None))
        measured += of_this
    error = max(abs(each.error_percent) for each in measured)
    off = max(_bytes_off(each) for each in measured)
    rows.append(_row(f"worst error of {len(measured)} peaks", error, "%", None, BAR_PERCENT, error <= BAR_PERCENT))
    rows.append(_row("weights, constants, adapters: bytes off", off, "bytes", None, 0, off == 0))
    return [*rows, *gpu_rows(seed)]


def _row(name: str, value: float, unit: str, reference: float | None, bar: float | None, holds: Any) -> dict[str, Any]:
    reference = None if reference is None else round(reference, 3)
    return {"name": name, "value": round(value, 3), "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def _bytes_off(measured: Measured) -> int:
    categories = ("weights", "quant_constants", "adapters")
    return max(abs(measured.traced_model[each] - measured.counted_model[each]) for each in categories)


def draw_case(architecture: str, draw: random.Random) -> Case:
    """A random small model of `architecture`, and random settings."""
    heads, head_size = draw.choice([2, 4, 6]), draw.choice([16, 32, 64])
    hidden = heads * head_size
    config: dict[str, Any] = {
        "model_type": architecture,
        "vocab_size": draw.choice([600, 2560, 5003]),
        "hidden_size": hidden,
        "num_hidden_layers": draw.randint(2, 6),
        "num_attention_heads": heads,
        "max_position_embeddings": 1024,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "tie_word_embeddings": draw.random() < 0.5,
    }
    inner = hidden * draw.choice([2, 3, 4])
    if architecture == "opt":
        config |= {"ffn_dim": inner, "word_embed_proj_dim": hidden}
    else:
        config["intermediate_size"] = inner
    if architecture not in ("opt", "gpt_neox"):
        config |= {"num_key_value_heads": draw.choice([heads, 2 if heads % 2 == 0 else 1])}
    if architecture in ("llama", "mistral", "qwen3", "gemma2", "qwen3_moe"):
        config["head_dim"] = head_size
    if architecture in ("mistral", "gemma2", "phi3"):
        config["sliding_window"] = draw.choice([64, 4096])
    if architecture == "qwen3_moe":
        chosen = draw.choice([1, 2, 3])
        config |= {"num_experts": draw.choice([4, 8]), "num_experts_per_tok": chosen}
        config["moe_intermediate_size"] = draw.choice([32, 64, 96])
    micro_batch = draw.choice([1, 2, 4])
    recipe = make_recipe(
        {
            "lora.rank": draw.choice([4, 8, 16, 32]),
            "quantization.double": draw.random() < 0.8,
            "train.effective_batch": 8,
            "train.gradient_checkpointing": draw.choice(["on", "off"]),
        }
    )
    longest = draw.choice([48, 128, 300])
    return Case(config, recipe, [draw.randint(longest // 2, longest) for _ in range(8)], micro_batch)


def measure(case: Case, computing: str = "float32", adapters: str = "float32", fused: bool = True) -> Measured:
    """Run a case for real and as a trace, on the CPU, with these dtypes for the computation and the adapters.

    `fused`: with the fused LoRA layer, else PEFT's own.
    """
    import torch

    from core.memory.meta_model import meta_model
    from core.memory.trace import trace
    from core.step.optimizer import OPTIMIZERS

    dtypes = getattr(torch, computing), getattr(torch, adapters)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        counted, counted_model, shapes, attention = _run(case, Path(folder), *dtypes, fused)
    checkpointing = "full" if case.recipe.train.gradient_checkpointing == "on" else "off"
    model = meta_model(case.config, case.recipe.quantization, case.recipe.lora, *dtypes, attention)
    traced = trace(model, shapes, "cpu", OPTIMIZERS["adamw"], checkpointing, fused=fused)
    return Measured(counted, counted_model, traced.peak, traced.resting)


def _run(
    case: Case, folder: Path, computing: Any, adapters: Any, fused: bool
) -> tuple[int, dict[str, int], list[Any], str]:
    """Train two real steps.

    Returns the counted peak, the model's size, the shapes of a step's micro-batches, and which attention computed them.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

    from core.basemodel.find import FoundModel, find_model
    from core.data.batches import MicroBatches
    from core.data.rendering.render import Rendered
    from core.memory.strategy import Strategy
    from core.memory.tensor_counter import Counter
    from core.memory.trace import MicroBatch, own_model
    from core.model.load import attach_lora, load_base, load_tokenizer
    from core.step.packing import settle_packing
    from core.system.hardware import Device
    from core.train.trainer import NibbleTrainer
    from core.train.trl_config import trainer_config

    base = folder / "model"
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**case.config)).save_pretrained(base)
    found = FoundModel(str(base), str(base), case.config["model_type"], case.config, base)
    here = Device("cpu", "CPU", 0, 0)
    with mock.patch("core.model.load.dtype_for", lambda *_: (computing, "of the case")):
        model = attach_lora(load_base(found, case.recipe.quantization, here), case.recipe.lora, adapters)
    packed, _, _ = settle_packing(model, case.recipe.train, "cpu", computing)
    rows = [
        Rendered(
            row, [5 + (row + at) % 500 for at in range(length)], [at >= length // 3 for at in range(length)], length
        )
        for row, length in enumerate(case.lengths)
    ]
    effective = case.recipe.train.effective_batch
    batches = MicroBatches(rows, [list(range(effective))] * 2, case.micro_batch, packed)
    checkpointing = "full" if case.recipe.train.gradient_checkpointing == "on" else "off"
    config = trainer_config(case.recipe, folder, "cpu", computing, 2, Strategy(case.micro_batch, checkpointing))
    tokenizer = load_tokenizer(find_model("starter"))
    trainer = NibbleTrainer(model, tokenizer, batches, config, TrainerCallback(), fused=fused)
    gc.collect()
    counter = Counter()
    with counter:
        own_model(counter, model)
        of_model = dict(counter.by_category)
        trainer.train()
    shapes = [MicroBatch.of(batches[index]) for index in range(effective // case.micro_batch)]
    return counter.peak, of_model, shapes, model.get_base_model().config._attn_implementation
