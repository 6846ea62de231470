"""Steps of a small model, resident or streamed, with every number that they give: losses, gradients, adapters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from core.basemodel.find import find_model
from core.data.batches import MicroBatches, data_order
from core.data.rendering.render import Rendered
from core.memory.strategy import Strategy
from core.model.load import attach_lora, load_base, load_tokenizer, torch_device
from core.model.stream.from_file import FromFile
from core.model.stream.layers import Layer
from core.model.stream.stream import LayerStream, stream_layers
from core.recipe import LoraSettings, QuantizationSettings, make_recipe
from core.system.hardware import Device
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config

CPU = Device("cpu", "CPU", 2**34, 2**33)
# Losses, gradients and adapters after each step, or what two models are compared by.
Numbers = list[dict[str, torch.Tensor]]
LORA: dict[str, Any] = {"rank": 4, "alpha": 8}
LAYERS = 5
BITS: dict[str, dict[str, Any]] = {
    "NF4, constants quantised": {"bits": 4},
    "NF4": {"bits": 4, "double": False},
    "8 bits": {"bits": 8},
    "16 bits": {"bits": 16},
}


def adapted(folder: Path, device: Device = CPU, bits: int = 4, double: bool = True, **lora: Any) -> Any:
    """The model of `folder` with adapters that are not zero."""
    settings = QuantizationSettings(bits=bits, double=double)  # type: ignore[arg-type]
    base = load_base(find_model(str(folder)), settings, device)
    torch.manual_seed(0)
    model = attach_lora(base, LoraSettings(**{**LORA, **lora}), base.dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape).mul_(0.02).to(parameter)
    return model


def from_file(folder: Path, device: Device = CPU) -> Callable[[list[Layer]], FromFile]:
    """For `stream_layers`: a file of the test's own in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return lambda layers: FromFile.cut(tempfile.TemporaryFile(dir=folder, buffering=0), layers, torch_device(device))


def streamed(model: Any, folder: Path, layers: int) -> LayerStream:
    """Let so many layers of `model` lie in a file in `folder`."""
    stream = stream_layers(model, from_file(folder))  # type: ignore[arg-type]
    stream.settle(layers)
    return stream


def plain_steps(model: Any, steps: int = 3, checkpointed: bool = True) -> Numbers:
    """Steps of plain SGD with transformers' own loss, over rows of different lengths."""
    model.train()
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    learns = {name: each for name, each in model.named_parameters() if each.requires_grad}
    found: Numbers = []
    torch.manual_seed(1)
    for step in range(steps):
        ids = torch.arange(2 * (20 + step)).view(2, -1).mul(7).add(step).remainder(300).to(model.device)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        found.append({"loss": loss.detach().cpu(), **{name: each.grad.cpu() for name, each in learns.items()}})
        for each in learns.values():
            each.data -= 0.1 * each.grad
            each.grad = None
    found.append({name: each.detach().cpu() for name, each in learns.items()})
    return found


class Recorded(TrainerCallback):
    """The losses and gradients of a trainer's steps."""

    def __init__(self) -> None:
        self.numbers: Numbers = []
        self.losses: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **named: Any) -> None:
        """The gradients are whole."""
        learns = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.numbers.append({name: each.grad.detach().cpu().clone() for name, each in learns.items()})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
        """After each step."""
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def warn(self, sentence: str) -> None:
        """Nothing is to be warned of."""
        raise AssertionError(sentence)


ROWS = [
    Rendered(number, [(5 + 7 * at + number) % 300 for at in range(length)], [True] * length, length)
    for number, length in enumerate([30, 12, 25, 41, 9, 33, 18, 27])
]


def trainer_steps(
    model: Any, tokenizer: Any, folder: Path, steps: int = 3, device: str = "cpu", packed: bool = True, **strategy: Any
) -> Numbers:
    """Steps of Nibble's own trainer: packed, with fused layers where they are of a kind for that."""
    recipe = make_recipe({"train.effective_batch": 4, "train.learning_rate": 0.01, "train.optimizer": "adamw"})
    way = Strategy(**{"micro_batch": 2, "checkpointing": "full", "optimizer": "adamw", **strategy})
    config = trainer_config(recipe, folder, device, model.dtype, steps, way)
    batches = MicroBatches(ROWS, data_order(len(ROWS), steps, 4, 0), way.micro_batch, packed)
    seen = Recorded()
    torch.manual_seed(2)
    trainer = NibbleTrainer(model, tokenizer, batches, config, seen, way.checkpointing, fused=way.fused_lora)
    trainer.train()
    assert len(seen.losses) == len(seen.numbers) == steps
    held_out = trainer.held_out_loss([trainer.batches.made_of(range(4))])
    after = {name: each.detach().cpu() for name, each in model.named_parameters() if each.requires_grad}
    return [*seen.numbers, after, {"losses": torch.tensor([*seen.losses, held_out], dtype=torch.float64)}]


def tokenizer_of(folder: Path) -> Any:
    """The model's tokenizer."""
    return load_tokenizer(find_model(str(folder)))


def same(one: Numbers, other: Numbers) -> bool:
    """Whether all numbers are the same, bit for bit, and there are some."""
    pairs = list(zip(one, other, strict=True))
    assert pairs and all(a.keys() == b.keys() for a, b in pairs)
    assert all(torch.isfinite(each).all() for numbers in one for each in numbers.values())
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)
