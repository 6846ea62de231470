"""The GPU's benchmarks on a machine without one: they say so, and what they run runs, on a tiny model on the CPU."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bench import _gpu_compare, _gpu_engines, _gpu_run, _memory_gpu, headline, train_gpu
from bench._gpu_frame import Frame, NotHere, TookTooLong
from bench._gpu_run import Job, Outcome, run_job
from bench._random_model import load_random, random_weights
from core.recipe import make_recipe
from core.system.hardware import device

CONFIG = {
    "model_type": "llama",
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
SETTINGS = {"lora.rank": 4, "train.effective_batch": 4, "train.max_steps": 3, "data.max_length": 48}
LENGTHS = [48, 40, 32, 24] * 3


def test_random_weights_take_no_room_and_are_loaded_into_every_place() -> None:
    import torch

    weights = random_weights({**CONFIG, "num_hidden_layers": 200}, torch.float32)
    assert sum(each.numel() for each in weights.values()) > 5_000_000
    assert (
        sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in weights.values()}.values())
        < 2e5
    )
    model = load_random(CONFIG, make_recipe({}).quantization, device(), torch.float32)
    assert sum("4bit" in type(each).__name__ for each in model.modules()) == 2 * 7
    assert 0.01 < float(model.get_input_embeddings().weight.std()) < 0.04
    said = model(torch.tensor([[5, 6, 7, 8]])).logits
    assert torch.isfinite(said).all()
    assert float(said.std()) > 0


@pytest.mark.parametrize("engine", ["nibble", "trl", "tuned"])
def test_a_job_trains_what_it_is_given(engine: str) -> None:
    done = _gpu_run.main(Job(CONFIG, SETTINGS, LENGTHS, engine=engine))
    assert len(done.losses) == 3
    assert done.tokens_per_second > 0
    assert done.parameters == 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128 + 2 * 64) + 2 * 640 * 64 + 64
    assert engine != "nibble" or done.predicted["process"] > done.predicted["tensors"] > 0


def test_tuning_by_hand_takes_the_fastest_of_the_settings_that_fit(monkeypatch) -> None:
    """With twice the time where layers are computed again, and no room for more than two conversations without that."""
    speeds = {(False, 2): 30.0, (True, 16): 20.0, (True, 8): 25.0}
    tried = []

    def fits(trainer, checkpointing: bool, size: int, effective: int) -> bool:
        tried.append((checkpointing, size))
        trainer.speed = speeds.get((checkpointing, size), 0.0)
        return checkpointing or size <= 2

    monkeypatch.setattr(_gpu_engines, "_fits", fits)
    trainer = SimpleNamespace()
    timer = SimpleNamespace(tokens_per_second=lambda: trainer.speed)
    assert dict(_gpu_engines._trials(trainer, timer, 16)) == speeds
    assert tried == [(False, 16), (False, 8), (False, 4), (False, 2), (True, 16), (True, 8)]


def test_what_replaces_the_plan_is_what_runs() -> None:
    changes = {"micro_batch": 2, "checkpointing": "full"}
    done = _gpu_run.main(Job(CONFIG, SETTINGS, LENGTHS, changes=changes))
    assert done.chosen["micro_batch"] == 2
    assert done.chosen["checkpointing"] == "full"
    assert done.shortages == 0


def test_a_job_that_does_not_fit_says_so_and_is_no_failure() -> None:
    with pytest.raises(NotHere, match="it does not fit: even the most frugal settings take"):
        run_job(Job(CONFIG, SETTINGS, LENGTHS, budget_bytes=10**6))


def test_a_job_that_takes_longer_than_is_left_is_ended() -> None:
    with pytest.raises(TookTooLong):
        run_job(Job(CONFIG, SETTINGS, LENGTHS), 0.0)


def test_a_job_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_architecture"):
        run_job(Job({"model_type": "no_such_architecture"}, SETTINGS, LENGTHS))


def test_without_a_gpu_the_benchmarks_say_so_and_measure_nothing(monkeypatch, capsys) -> None:
    monkeypatch.setattr("bench._gpu.device", lambda: replace(device(), kind="cpu"))
    assert _memory_gpu.rows(0) == headline.main() == train_gpu.main() == []
    assert capsys.readouterr().err.count("No NVIDIA GPU here") == 3


def _outcome(**changes: object) -> Outcome:
    predicted = {"tensors": 100, "reserved": 110, "process": 150}
    return replace(Outcome(predicted, 100, 110, 150, {}, 10.0, [1.0] * 10, 10**9), **changes)


def test_the_bars_are_for_both_sides_and_less_for_promising_too_little() -> None:
    verdicts = {each["name"]: each for each in _memory_gpu.verdicts([_outcome(), _outcome(tensors=102, process=148)])}
    assert verdicts["worst error of 2: tensors"]["holds"]
    assert not verdicts["most under: tensors"]["holds"]
    assert verdicts["worst error of 2: process"]["value"] == pytest.approx(1.351, abs=1e-3)
    assert verdicts["most under: process"]["holds"]


def test_speeds_are_compared_at_the_same_memory() -> None:
    rows = train_gpu.figures("x", "trl", _outcome(tokens_per_second=15.0), _outcome(), 1.5, rate=1e12)
    assert rows[1]["value"] == 1.5
    assert rows[1]["holds"]
    assert rows[3]["value"] == pytest.approx(100 * 4 * 1e9 * 15 / 1e12)


def test_two_ways_to_do_the_same_are_held_to_the_same_losses() -> None:
    off = _outcome(grad_norms=[2.0, 4.0, 3.0])
    on = _outcome(tokens_per_second=9.0, losses=[1.0] * 9 + [1.2], grad_norms=[math.inf, 4.0, 3.03])
    rows = {each["unit"]: each for each in _gpu_compare.figures(_gpu_compare.OFFLOAD, on, off)}
    assert rows["times"]["value"] == 0.9
    assert rows["nats"]["value"] == pytest.approx(0.2)
    assert rows["nats"]["holds"] is False
    assert rows["%"]["value"] == pytest.approx(1.0)
    assert rows["%"]["holds"] is True


def test_comparisons_differ_in_nothing_but_what_is_compared() -> None:
    for each in (
        _gpu_compare.OFFLOAD,
        _gpu_compare.EMBEDDINGS,
        _gpu_compare.FP16,
        _gpu_compare.PACKING,
        _gpu_compare.FUSED,
        _gpu_compare.VARLEN,
    ):
        job = _gpu_compare.job_of(each, 0, Frame(tiny=True))
        on, off = (_gpu_compare._changed(job, fields) for fields in (each.on, each.off))
        assert on != off
        assert (on.config, on.lengths) == (off.config, off.lengths)
        make_recipe(on.settings), make_recipe(off.settings)
