"""What tests of training on a card check, and what test_mutations.py then sees fail."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.memory.measured_overhead import WORKSPACE_BYTES
from core.runs.store import Run
from core.runs.tail import Tail
from core.train.trainer import NibbleTrainer
from core.workspace import Workspace
from tests.gpu.in_process import after_step, choose, events, finished, go_on, losses, peaks, settings, stop, train
from tests.gpu_standin.install import figures
from tests.gpu_standin.install import machine as the_machine
from tests.gpu_standin.machine import VARIABLE, Card, Machine, occupy
from tests.tiny import tiny_model

MIB = 2**20
# Of fp32, over a few steps that are each as large as Adam takes them.
ROUNDING = 1e-5
# fp16 has 11 bits of mantissa; a few layers add up to some units of the last one.
ROUNDING_OF_FP16 = 4e-3
RANDOM = {"lora.dropout": 0.2, "train.neftune_alpha": 5}

# ---- a budget

BUDGET = 700 * 10**6
# A card that is soon full, and whose driver takes for a context what the plan counts.
SMALL = Machine(cards=(Card("NVIDIA small", (8, 6), 1800),), context_mib=476)


def with_paged_states(wide: Path, rows: Path, **more: Any) -> dict[str, Any]:
    """The adapter's matrices have more numbers than bitsandbytes leaves unpaged."""
    return settings(wide, rows, **{"lora.rank": 400, "train.max_steps": 2, "train.learning_rate": 0.001, **more})


def check_enforced(folder: Path, values: dict[str, Any]) -> None:
    """A run takes what it can get: that is all of the budget and no more, by the driver's count."""
    managed = _used()[1]  # by earlier tests: it is never given back
    most: list[int] = []

    def take_all(watcher: Any) -> None:
        taken = []
        with pytest.raises(torch.OutOfMemoryError):
            while True:
                taken.append(torch.empty(2 * MIB, dtype=torch.uint8, device="cuda"))
        most.append(sum(_used()) - managed)
        del taken
        torch.cuda.empty_cache()

    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, 1, take_all)
        run = finished(train(Workspace.open(folder / "enforced"), values))
    assert "enforced by torch's allocator" in events(run, "budget")
    assert BUDGET - 10 * 10**6 < most[0] <= BUDGET


def _used() -> tuple[int, int]:
    """Bytes of the card that this process has: context and torch's; managed memory."""
    mine = [each for each in the_machine().process if each.pid == os.getpid()]
    return sum(each.bytes for each in mine), sum(each.managed for each in mine)


# ---- fp16


def norms(run: Run) -> list[float]:
    """The gradient's norm in each step, before it is clipped."""
    return [row["grad_norm"] for row in Tail(run.dir / "metrics.jsonl").read() if "grad_norm" in row]


def check_fp16(folder: Path, values: dict[str, Any], expected: Run) -> None:
    """A run on this card computes in fp16; losses and gradients are those of `expected` but for rounding."""
    run = finished(train(Workspace.open(folder / "fp16"), values))
    assert "float16" in events(run, "device") and "bfloat16" not in events(run, "device")
    assert losses(run) == pytest.approx(losses(expected), rel=ROUNDING_OF_FP16)
    assert norms(run) == pytest.approx(norms(expected), rel=10 * ROUNDING_OF_FP16)


# ---- predicted memory

ONE_PERCENT = 0.01
LARGER = {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}


def larger(folder: Path, architecture: str) -> Path:
    """A random model of some 10 MB."""
    return tiny_model(folder / architecture, architecture, **LARGER)


def check_predicted(folder: Path, values: dict[str, Any]) -> None:
    """The run's tensors took at their peak what was predicted, cuBLAS' workspaces left out on both sides."""
    run = finished(train(Workspace.open(folder / "workspace"), {"train.max_steps": 2, **values}))
    counted, predicted = peaks(run)
    assert counted - WORKSPACE_BYTES == pytest.approx(predicted - WORKSPACE_BYTES, rel=ONE_PERCENT)


# ---- stopping and resuming

STEPS, STOPPED_AT = 6, 3
# Each of the adapter's matrices has more numbers than bitsandbytes leaves unpaged.
PAGED = {"lora.rank": 400, "lora.targets": "q_v", "train.learning_rate": 0.001}
_RESUMED = {**RANDOM, "train.max_steps": STEPS, "data.eval_fraction": 0.0}


def in_one_go(folder: Path, values: dict[str, Any]) -> Run:
    """The run that nobody stops, with dropout and noise."""
    return finished(train(Workspace.open(folder / "whole"), {**values, **_RESUMED}))


def check_resumed(folder: Path, values: dict[str, Any], whole: Run) -> None:
    """The same in two parts has the same losses and the same adapter, bit for bit."""
    workspace = Workspace.open(folder / "in two parts")
    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, STOPPED_AT, stop)
        run = train(workspace, {**values, **_RESUMED})
    assert run.status().step == STOPPED_AT
    finished(go_on(run, workspace))
    assert losses(run) == losses(whole)
    assert len(losses(run)) == STEPS
    ours, theirs = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---- another process that takes memory

LEFT = 6  # MiB
SIXTH = 6  # pass: the second of the third step's two


def leave(mib: int) -> None:
    """Another process takes all of the card but what this one has now, and `mib`."""
    torch.cuda.empty_cache()
    now = the_machine()
    card = now.card[0]
    others = card.bytes - card.driver_bytes - now.context_bytes - _used()[1] - figures().reserved - mib * MIB
    occupy(Path(os.environ[VARIABLE]), others // MIB)


def alone(wide: Path, rows: Path) -> dict[str, Any]:
    """One conversation at a time, with dropout: only checkpointing and offloading can make it take less."""
    return {**together(wide, rows), "train.micro_batch": 1, "lora.dropout": 0.2, "train.effective_batch": 2}


def together(wide: Path, rows: Path) -> dict[str, Any]:
    """Two conversations at a time, two times a step."""
    return settings(wide, rows, **{"train.micro_batch": 2, "data.eval_fraction": 0.0})


def undisturbed(folder: Path, values: dict[str, Any]) -> list[float]:
    """The losses where nobody takes anything."""
    return losses(finished(train(Workspace.open(folder / "undisturbed"), values)))


def check_shortage(folder: Path, values: dict[str, Any], expected: list[float]) -> Run:
    """With little left in the middle of the third step, the run takes less and goes on with the same result."""
    with pytest.MonkeyPatch.context() as patch:
        choose(patch, checkpointing="off")
        before_pass(patch, SIXTH, lambda: leave(LEFT))
        run = finished(train(Workspace.open(folder / "short of memory"), values))
    assert "Step 3: memory ran out" in events(run) and "The result stays the same." in events(run)
    assert losses(run)[:2] == expected[:2]
    assert losses(run) == pytest.approx(expected, rel=ROUNDING)
    return run


def before_pass(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Call `act` before the pass through the model that has this number, from 1 on."""
    passes, compute = count(1), NibbleTrainer.summed_loss

    def and_act(self: NibbleTrainer, inputs: Any) -> Any:
        if next(passes) == number:
            act()
        return compute(self, inputs)

    patch.setattr(NibbleTrainer, "summed_loss", and_act)
