"""A card that turns out smaller than planned: another process takes memory in the middle of a run."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from core.runs.manifest import valid_checkpoints
from core.runs.store import Run
from core.train.trainer import NibbleTrainer
from core.workspace import Workspace
from tests.gpu.in_process import after_step, choose, events, finished, in_fp32, losses, settings, train
from tests.gpu_standin.install import figures
from tests.gpu_standin.install import machine as the_machine
from tests.gpu_standin.machine import VARIABLE, occupy
from tests.tiny import chat_rows, tiny_model, write_jsonl

MIB = 2**20
ROUNDING = 1e-5
LEFT = 6  # MiB
SIXTH = 6  # pass: the second of the third step's two
LINE = "the quick brown fox jumps over the lazy dog "


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose activations take some MB."""
    return tiny_model(tmp_path_factory.mktemp("models") / "wide", hidden_size=256, num_hidden_layers=4)


@pytest.fixture(scope="module")
def long_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of 150 tokens and more."""
    rows = chat_rows(16)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] = LINE * (15 + number % 3)
    return write_jsonl(tmp_path_factory.mktemp("data") / "long.jsonl", rows)


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    in_fp32(monkeypatch)


def leave(mib: int) -> None:
    """Another process takes all of the card but what this one has now, and `mib`."""
    torch.cuda.empty_cache()
    now = the_machine()
    card, mine = now.card[0], next(each for each in now.process if each.pid == os.getpid())
    others = card.bytes - card.driver_bytes - now.context_bytes - mine.managed - figures().reserved - mib * MIB
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


def test_a_run_goes_on_with_fewer_conversations_at_once(wide, long_rows, tmp_path) -> None:
    values = together(wide, long_rows)
    run = check_shortage(tmp_path, values, undisturbed(tmp_path, values))
    assert [change["micro_batch"] for change in run.plan()["changed"]][0] == 1


def test_a_run_goes_on_with_checkpointing_and_dropout_draws_the_same(wide, long_rows, tmp_path) -> None:
    values = alone(wide, long_rows)
    run = check_shortage(tmp_path, values, undisturbed(tmp_path, values))
    assert [change["checkpointing"] for change in run.plan()["changed"]][0] == "half"


def test_a_run_for_which_nothing_is_left_is_saved_and_ends(wide, long_rows, tmp_path, monkeypatch) -> None:
    after_step(monkeypatch, 2, lambda watcher: leave(0))
    run = train(Workspace.open(tmp_path), alone(wide, long_rows))
    assert run.status().state == "failed"
    message = run.status().message
    assert message.startswith("Memory ran out within the budget")
    assert "Progress up to step 2 is saved." in message
    assert [folder.name for folder in valid_checkpoints(run.dir / "checkpoints")][0] == "2"
    assert (run.adapter / "adapter_model.safetensors").exists()
