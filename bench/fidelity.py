"""QLoRA's central claim on the starter: adapters over 4 bits learn what adapters over 16 bits learn.

One sample task, several seeds. A seed sets the held-out rows, the order of the data and the adapter's initialisation.
They are the same for every arm, so the arms are compared seed by seed. All use Nibble's own trainer. Full
fine-tuning, which only this benchmark does, trains the base's weights under an adapter that stays at zero. It reaches
a lower loss than LoRA here because it trains the embeddings, which never saw a pirate's words. With frozen
embeddings, full fine-tuning ends where LoRA does; with trained ones, LoRA ends below full fine-tuning. Both are
shown.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.recipe import Recipe, make_recipe

SEEDS = 5
STEPS = 100
BAR_PERCENT = 2.0
# QLoRA, section 3: 4 bits, 8-bit scales of blocks of 64, their 32-bit scales of blocks of 256.
PAPER_BITS, BITS_OFF = 4.127, 0.01
TASK = {
    "model": "starter",
    "data.path": "pirate",
    "data.max_length": 256,
    "data.eval_fraction": 0.25,
    "lora.rank": 16,
    "lora.alpha": 32,
    "train.effective_batch": 8,
    "train.learning_rate": 2e-3,
    "train.warmup_ratio": 0.05,
    "train.max_grad_norm": 1.0,
    "train.optimizer": "adamw",
}
# The 97.5 % quantiles of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to fine-tune: the base's number format, and what of it is trained."""

    name: str
    settings: dict[str, Any]
    full: bool = False


LORA = Arm("16-bit LoRA", {"quantization.bits": 16})
QLORA = Arm("QLoRA, NF4 and double quantisation", {})
OTHERS = (
    Arm("QLoRA, NF4", {"quantization.double": False}),
    Arm("QLoRA, FP4", {"quantization.double": False, "quantization.type": "fp4"}),
    Arm("16-bit LoRA and embeddings", {"quantization.bits": 16, "lora.extra_modules": ["embeddings"]}),
    # A tenth of LoRA's rate, as is usual: every weight moves.
    Arm("full fine-tuning", {"quantization.bits": 16, "train.learning_rate": 2e-4}, full=True),
)


@dataclass(frozen=True)
class Learned:
    """Loss on the held-out rows before and after training, in nats per token."""

    before: float
    after: float


def main(seed: int = 0, seeds: int = SEEDS, steps: int = STEPS) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    learned: dict[Arm, list[Learned]] = {arm: [] for arm in (LORA, QLORA, *OTHERS)}
    for each in range(seed * seeds, (seed + 1) * seeds):
        for arm in learned:
            learned[arm].append(learn(arm, each, steps))
        losses = ", ".join(f"{arm.name} {learned[arm][-1].after:.4f}" for arm in learned)
        print(f"seed {each}: {losses}", file=sys.stderr)
    return [*_claim(learned), *_errors(seed), *_storage()]


def _row(
    name: str, value: float, unit: str, reference: float | None = None, bar: float | None = None, holds: Any = None
) -> dict[str, Any]:
    reference = None if reference is None else round(reference, 4)
    return {"name": name, "value": round(value, 4), "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def _claim(learned: dict[Arm, list[Learned]]) -> list[dict[str, Any]]:
    """Each arm's mean final loss, and its difference from 16-bit LoRA's, seed by seed."""
    wanted = [each.after for each in learned[LORA]]
    start = statistics.mean(each.before for each in learned[LORA])
    rows = [_row(f"final loss, {LORA.name} (reference: before training)", statistics.mean(wanted), "nats", start)]
    for arm in (QLORA, *OTHERS):
        found = [each.after for each in learned[arm]]
        percent = [100 * (ours / theirs - 1) for ours, theirs in zip(found, wanted, strict=True)]
        mean, low, high = interval(percent)
        rows.append(_row(f"final loss, {arm.name}", statistics.mean(found), "nats", statistics.mean(wanted)))
        bar, holds = (BAR_PERCENT, abs(mean) <= BAR_PERCENT) if arm is QLORA else (None, None)
        name = f"{arm.name}, against {LORA.name}, {len(found)} seeds (95 %: {low:+.2f} to {high:+.2f})"
        rows.append(_row(name, mean, "%", 0.0, bar, holds))
    return rows


def interval(values: list[float]) -> tuple[float, float, float]:
    """The mean of `values` and its 95 % interval by Student's t; without bounds for a single value."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return mean, -math.inf, math.inf
    half = STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def learn(arm: Arm, seed: int, steps: int) -> Learned:
    """Fine-tune the starter once, through Nibble's trainer."""
    import torch
    from transformers import TrainerCallback

    from core.basemodel.find import find_model
    from core.data.batches import MicroBatches, data_order, evaluation_batches
    from core.memory.strategy import Strategy
    from core.model.load import dtype_for, load_tokenizer
    from core.system.hardware import device
    from core.train.trainer import NibbleTrainer
    from core.train.trl_config import trainer_config

    recipe = make_recipe({**TASK, **arm.settings, "train.seed": seed})
    found, chosen = find_model(recipe.model), device()
    tokenizer, batch = load_tokenizer(found), recipe.train.effective_batch
    rows, held_out = _rows(recipe, tokenizer)
    torch.manual_seed(seed)
    model = _model(recipe, arm.full)
    order = data_order(len(rows), steps, batch, seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        config = trainer_config(recipe, Path(folder), chosen.kind, dtype_for(chosen)[0], steps, Strategy(batch, "off"))
        config.logging_steps = steps
        batches = MicroBatches(rows, order, batch, packed=True)
        trainer = NibbleTrainer(model, tokenizer, batches, config, TrainerCallback(), "off")
        before = trainer.held_out_loss(evaluation_batches(held_out, 2048, packed=True))
        trainer.train()
        return Learned(before, trainer.held_out_loss(evaluation_batches(held_out, 2048, packed=True)))


def _rows(recipe: Recipe, tokenizer: Any) -> tuple[Any, Any]:
    """The training rows and the held-out rows, split as a run does."""
    from core.data.dataset import load
    from core.data.rendering.render import PickedRows, render_all
    from core.data.samples import find_sample
    from core.data.split import keys_for_rows, split

    sample = find_sample(recipe.data.path)
    if sample is None:
        raise FileNotFoundError(f"presets/datasets has no sample named {recipe.data.path}")
    conversations = load(sample.path, recipe.data)
    rendered = render_all(tokenizer, conversations, recipe.data).usable
    keys = keys_for_rows(rendered.rows, conversations.usable)
    train, held_out = split(keys, recipe.data.eval_fraction, recipe.data.eval_max_rows, recipe.train.seed)
    return PickedRows(rendered, train), PickedRows(rendered, held_out)


def _model(recipe: Recipe, full: bool) -> Any:
    """The starter, with what is to be trained in fp32, as torch's AdamW needs it."""
    import torch

    from core.basemodel.find import find_model
    from core.model.load import attach_lora, load_base
    from core.system.hardware import device

    base = load_base(find_model(recipe.model), recipe.quantization, device())
    model = attach_lora(base.float() if full else base, recipe.lora, torch.float32)
    if full:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" not in name)
    return model


def _errors(seed: int) -> list[dict[str, Any]]:
    """The error of each number format: relative root mean square against the weights, in percent."""
    import torch

    normal = [torch.randn(1024, 1024, generator=torch.Generator().manual_seed(seed))]
    rows = []
    for name, weights in (("starter's weights", _quantised_weights()), ("normal weights", normal)):
        off = {kind: _percent_off(weights, there_and_back) for kind, there_and_back in FORMATS.items()}
        rest = {kind: off[kind] for kind in ("FP4", "symmetric int4")}
        rows += [_row(f"quantisation error, {name}, {kind}", value, "%") for kind, value in rest.items()]
        rows.append(_row(f"quantisation error, {name}, NF4 + double", off["NF4 + double"], "%", off["NF4"]))
        least = min(rest.values())
        rows.append(
            _row(f"quantisation error, {name}, NF4", off["NF4"], "%", least, round(least, 4), off["NF4"] < least)
        )
    return rows


def _quantised_weights() -> list[Any]:
    """The starter's own values of the weights that a run keeps in 4 bits, in fp32."""
    from bitsandbytes.nn import Linear4bit

    in_four_bits = _base({}).named_modules()
    names = [name for name, module in in_four_bits if isinstance(module, Linear4bit)]
    whole = _base({"quantization.bits": 16})
    return [whole.get_submodule(name).weight.data.float() for name in names]


def _base(settings: dict[str, Any]) -> Any:
    from core.basemodel.find import find_model
    from core.model.load import load_base
    from core.system.hardware import device

    recipe = make_recipe({"model": TASK["model"], **settings})
    return load_base(find_model(recipe.model), recipe.quantization, device())


def _percent_off(weights: list[Any], there_and_back: Callable[[Any], Any]) -> float:
    wrong = sum(float((there_and_back(weight) - weight).square().sum()) for weight in weights)
    return 100 * math.sqrt(wrong / sum(float(weight.square().sum()) for weight in weights))


def _four_bits(kind: str, double: bool = False) -> Callable[[Any], Any]:
    def there_and_back(weight: Any) -> Any:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        return dequantize_4bit(*quantize_4bit(weight, blocksize=64, compress_statistics=double, quant_type=kind))

    return there_and_back


def _int4(weight: Any) -> Any:
    """Symmetric int4: each block of 64 scaled by its largest value to whole numbers from -7 to 7."""
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    return ((blocks / scale).round().clamp(-7, 7) * scale).reshape(weight.shape)


FORMATS: dict[str, Callable[[Any], Any]] = {
    "NF4": _four_bits("nf4"),
    "NF4 + double": _four_bits("nf4", double=True),
    "FP4": _four_bits("fp4"),
    "symmetric int4": _int4,
}


def _storage() -> list[dict[str, Any]]:
    """The size of the loaded model's quantised weights, summed over their tensors, in bits per parameter."""
    from bitsandbytes.nn import Linear4bit

    weights = [module.weight for module in _base({}).modules() if isinstance(module, Linear4bit)]
    parameters = sum(weight.quant_state.shape.numel() for weight in weights)
    states = [weight.quant_state for weight in weights]
    stored = [weight.data for weight in weights] + [state.absmax for state in states]
    stored += [tensor for state in states for tensor in (state.state2.absmax, state.offset)]
    codebooks = [code for state in states for code in (state.code, state.state2.code)]
    bits, extra = (8 * _bytes(tensors) / parameters for tensors in (stored, codebooks))
    near = abs(bits - PAPER_BITS) <= BITS_OFF
    return [
        _row("storage of a quantised parameter", bits, "bits", PAPER_BITS, PAPER_BITS + BITS_OFF, near),
        _row("codebooks, apart", extra, "bits"),
    ]


def _bytes(tensors: list[Any]) -> int:
    """The bytes of `tensors`. A tensor that several layers share counts once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())
