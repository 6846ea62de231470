"""What the tests on a card are good for: each of these undoes one thing that is needed, and a check must fail.

A mutation names the code that it changes; where that code has become another, it says so.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from bitsandbytes import functional
from trl.models.activation_offloading import OffloadActivations

from core.memory import measured_overhead, meta_kernels, trace, traces
from core.runs.store import Run
from core.step import adapter_dtype
from core.system import hardware
from core.train import checkpoints, decide, loop
from core.train.trainer import NibbleTrainer
from core.workspace import Workspace
from tests.gpu.checks import (
    PAGED,
    RANDOM,
    ROUNDING,
    SMALL,
    alone,
    check_enforced,
    check_fp16,
    check_predicted,
    check_resumed,
    check_shortage,
    in_one_go,
    larger,
    together,
    undisturbed,
    with_paged_states,
)
from tests.gpu.in_process import choose, finished, in_fp32, losses, settings, train
from tests.gpu.mutate import mutate
from tests.gpu_standin.machine import ADA, AMPERE, TURING, VARIABLE, Machine, occupy

pytestmark = pytest.mark.full  # they take as long as the rest of the suite's engine

OFFLOADED = {"checkpointing": "full", "offload": True}


def run_of(folder: Path, model: Path, rows: Path, **more: Any) -> Run:
    """A run that is to finish."""
    return finished(train(Workspace.open(folder / "mutated"), settings(model, rows, **more)))


# ---- places


def test_a_micro_batch_that_stays_on_the_cpu(tiny, rows_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(NibbleTrainer, "_prepare_inputs", lambda self, inputs: inputs)
    with pytest.raises(AssertionError, match="Expected all tensors to be on the same device"):
        run_of(tmp_path, tiny, rows_file)


def test_held_out_rows_that_stay_on_the_cpu(tiny, rows_file, tmp_path, monkeypatch) -> None:
    mutate(monkeypatch, NibbleTrainer, "held_out_loss", "value.to(self.args.device)", "value")
    with pytest.raises(AssertionError, match="Expected all tensors to be on the same device"):
        run_of(tmp_path, tiny, rows_file)


@pytest.mark.parametrize(("what", "instead"), [("looked_up.to(home)", "looked_up"), ('each.to("cpu")', "each")])
def test_embeddings_in_ram_that_are_not_brought_together_with_their_tokens(
    what, instead, tiny, rows_file, tmp_path, monkeypatch
) -> None:
    choose(monkeypatch, embeddings_in_ram=True)
    mutate(monkeypatch, decide, "keep_embeddings_in_ram", what, instead)
    with pytest.raises(AssertionError, match="Expected all tensors to be on the same device"):
        run_of(tmp_path, tiny, rows_file)


@pytest.mark.machine(Machine(cards=(AMPERE, ADA)))
def test_a_card_with_another_number_than_the_freest(monkeypatch) -> None:
    occupy(Path(os.environ[VARIABLE]), 8000, card=0)
    _check_freest()
    mutate(monkeypatch, hardware, "claim_card", "str(chosen.index)", '"0"')
    with pytest.raises(AssertionError, match="GeForce RTX 3060"):
        _check_freest()


def _check_freest() -> None:
    """What this process claims, the next one gets: the card with the most free memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        hardware.claim_card()
        code = "import torch; print(torch.cuda.get_device_name())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    assert done.stdout.strip() == ADA.name


# ---- order between streams


def test_offloaded_activations_that_are_used_before_they_are_back(tiny, rows_file, tmp_path, monkeypatch) -> None:
    choose(monkeypatch, **OFFLOADED)
    mutate(monkeypatch, OffloadActivations, "__init__", "self.s0.wait_stream(self.s1)", "pass")
    with pytest.raises(AssertionError, match="race: stream 0 reads"):
        run_of(tmp_path, tiny, rows_file)


def test_activations_that_are_offloaded_before_they_are_computed(tiny, rows_file, tmp_path, monkeypatch) -> None:
    choose(monkeypatch, **OFFLOADED)
    mutate(monkeypatch, OffloadActivations, "__init__", "self.s1.wait_stream(self.s0)", "pass")
    with pytest.raises(AssertionError, match="race: stream"):
        run_of(tmp_path, tiny, rows_file)


def test_a_micro_batch_that_is_used_while_it_is_copied(tiny, rows_file, tmp_path, monkeypatch) -> None:
    side = torch.cuda.Stream()

    def prepare(self: NibbleTrainer, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.cuda.stream(side):
            return {key: value.pin_memory().to("cuda", non_blocking=True) for key, value in inputs.items()}

    monkeypatch.setattr(NibbleTrainer, "_prepare_inputs", prepare)
    with pytest.raises(AssertionError, match="race: stream 0 reads"):
        run_of(tmp_path, tiny, rows_file)


def test_paged_states_that_are_filled_while_zeros_are_still_being_written(wide, rows_file, tmp_path, monkeypatch):
    values = settings(wide, rows_file, **PAGED)
    whole = in_one_go(tmp_path, values)
    # Each of the two waits is enough.
    mutate(monkeypatch, functional, "elementwise_func", "    torch.cuda.synchronize()", "    pass")
    check_resumed(tmp_path / "one wait", values, whole)
    mutate(monkeypatch, checkpoints, "_place", "torch.cuda.synchronize()", "pass")
    with pytest.raises(AssertionError):
        check_resumed(tmp_path, values, whole)


# ---- random numbers


def test_a_checkpoint_without_the_cards_generator(tiny, rows_file, tmp_path, monkeypatch) -> None:
    values = settings(tiny, rows_file)
    whole = in_one_go(tmp_path, values)
    what = "torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []"
    mutate(monkeypatch, checkpoints, "random_states", what, "[]")
    with pytest.raises(AssertionError):
        check_resumed(tmp_path, values, whole)


def test_a_recomputed_layer_with_another_dropout(tiny, rows_file, tmp_path, monkeypatch) -> None:
    in_fp32(monkeypatch)
    expected = losses(run_of(tmp_path / "kept", tiny, rows_file, **RANDOM))
    choose(monkeypatch, checkpointing="full")
    what = 'gradient_checkpointing_kwargs={"use_reentrant": False}'
    mutate(monkeypatch, loop, "trainer_config", what, what.replace("}", ', "preserve_rng_state": False}'))
    assert losses(run_of(tmp_path, tiny, rows_file, **RANDOM)) != pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        pytest.param(alone, "restore_random_states(before)", id="with another dropout"),
        pytest.param(together, "self.model.zero_grad(set_to_none=True)", id="with the gradient of the first try"),
    ],
)
def test_a_step_that_is_begun_again(batch, what, wide, long_rows, tmp_path, monkeypatch) -> None:
    in_fp32(monkeypatch)
    values = batch(wide, long_rows)
    expected = undisturbed(tmp_path, values)
    mutate(monkeypatch, NibbleTrainer, "_share", what, "pass")
    with pytest.raises(AssertionError, match="approx"):
        check_shortage(tmp_path, values, expected)


# ---- dtypes


@pytest.mark.machine(Machine(cards=(TURING,)))
def test_adapters_in_fp32_that_are_not_cast(tiny, rows_file, tmp_path, monkeypatch) -> None:
    mutate(monkeypatch, adapter_dtype, "_forward", "linear.weight.to(x.dtype)", "linear.weight")
    with pytest.raises(AssertionError, match="dtype"):
        run_of(tmp_path, tiny, rows_file)


@pytest.mark.machine(Machine(cards=(TURING,)))
def test_gradients_that_are_clipped_before_they_are_unscaled(tiny, rows_file, tmp_path, monkeypatch) -> None:
    values = settings(tiny, rows_file)
    expected = finished(train(Workspace.open(tmp_path / "expected"), values))
    check_fp16(tmp_path / "same", values, expected)
    monkeypatch.setattr(Accelerator, "unscale_gradients", lambda self, optimizer=None: None)
    with pytest.raises(AssertionError):
        check_fp16(tmp_path, values, expected)


# ---- memory


@pytest.mark.machine(SMALL)
@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("torch.cuda.set_per_process_memory_fraction(_share, 0)", "pass"),
        ("budget_bytes - context - managed_bytes", "budget_bytes - managed_bytes"),
        ("budget_bytes - context - managed_bytes", "budget_bytes - context"),
    ],
    ids=["no limit", "the context not counted", "paged states not counted"],
)
def test_a_limit_that_is_not_the_budgets(what, instead, wide, rows_file, tmp_path, monkeypatch) -> None:
    mutate(monkeypatch, loop, "enforce", what, instead)
    with pytest.raises(AssertionError):
        check_enforced(tmp_path, with_paged_states(wide, rows_file, budget="700MB"))


@pytest.fixture
def traced_anew():
    """Traces are kept for the whole process."""
    traces._trace.cache_clear()
    yield
    traces._trace.cache_clear()


def test_a_plan_without_the_cards_mask_of_dropout(rows_file, tmp_path, monkeypatch, traced_anew) -> None:
    kernel = '_dropout() if kind == "cuda" else functional.dropout'
    mutate(monkeypatch, trace, "kernels_of", kernel, "functional.dropout")
    assert meta_kernels.kernels_of is not trace.kernels_of
    values = settings(larger(tmp_path, "llama"), rows_file, **{"lora.dropout": 0.1})
    with pytest.raises(AssertionError):
        check_predicted(tmp_path, values)


def test_a_plan_without_the_libraries_workspace(tiny, rows_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(measured_overhead, "WORKSPACE_BYTES", 0)
    with pytest.raises(AssertionError):
        check_predicted(tmp_path, settings(tiny, rows_file))
