"""Cards without bf16 compute in fp16, with gradients scaled so that none is rounded to zero."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.runs.store import Run
from core.workspace import Workspace
from tests.gpu.checks import check_fp16
from tests.gpu.in_process import after_step, events, finished, losses, settings, the_cpu, train
from tests.gpu_standin.machine import TURING, Machine


@pytest.fixture(scope="module")
def in_fp32(tiny: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run on the CPU, in fp32."""
    with the_cpu():
        return finished(train(Workspace.open(tmp_path_factory.mktemp("fp32")), settings(tiny, rows_file)))


@pytest.mark.machine(Machine(cards=(TURING,)))
def test_a_run_in_fp16_has_the_losses_and_gradients_of_fp32(tiny, rows_file, tmp_path, in_fp32) -> None:
    check_fp16(tmp_path, settings(tiny, rows_file), in_fp32)


@pytest.mark.full
@pytest.mark.machine(Machine(cards=(TURING,)))
@pytest.mark.parametrize("more", [{"lora.dora": True}, {"quantization.bits": 8}, {"quantization.bits": 16}], ids=str)
def test_so_it_is_for_every_base(more, tiny, rows_file, tmp_path) -> None:
    values = settings(tiny, rows_file, **more)
    with the_cpu():
        expected = finished(train(Workspace.open(tmp_path / "fp32"), values))
    check_fp16(tmp_path, values, expected)


@pytest.mark.machine(Machine(cards=(TURING,)))
def test_a_step_whose_gradient_overflows_is_skipped_and_said(tiny, rows_file, tmp_path, monkeypatch) -> None:
    adapters: list[list[torch.Tensor]] = []
    scales: list[float] = []

    def look(watcher: Any) -> None:
        trained = [each for each in watcher.trainer.model.parameters() if each.requires_grad]
        adapters.append([each.detach().cpu().clone() for each in trained])
        scales.append(watcher.trainer.accelerator.scaler.get_scale())
        if len(adapters) == 2:
            hook = trained[0].register_hook(lambda gradient: (hook.remove(), gradient * float("inf"))[1])

    for step in (1, 2, 3, 4):
        after_step(monkeypatch, step, look)
    run = finished(train(Workspace.open(tmp_path / "workspace"), settings(tiny, rows_file)))
    same = [all(map(torch.equal, *pair)) for pair in zip(adapters, adapters[1:], strict=False)]
    assert same == [False, True, False]
    assert scales == [65536, 65536, 32768, 32768]
    assert events(run, "overflow").splitlines() == [
        "Step 3: the gradient overflowed fp16; the step was skipped, and gradients are scaled by 32,768 from now on."
    ]
    assert run.result()["skipped_steps"] == 1
    assert None not in losses(run)
