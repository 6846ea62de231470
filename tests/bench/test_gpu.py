"""The GPU's benchmarks on a machine without one: they say so, and what they run runs, on a tiny model on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import _gpu_run, _memory_gpu, headline, train_gpu
from bench._gpu_run import Job, Outcome
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
    model = load_random(CONFIG, make_recipe({}).quantization, device())
    assert sum("4bit" in type(each).__name__ for each in model.modules()) == 2 * 7
    assert 0.01 < float(model.get_input_embeddings().weight.std()) < 0.04
    said = model(torch.tensor([[5, 6, 7, 8]])).logits
    assert torch.isfinite(said).all()
    assert float(said.std()) > 0


@pytest.mark.parametrize("reference", [False, True])
def test_a_job_trains_what_it_is_given(reference: bool) -> None:
    done = _gpu_run.main(Job(CONFIG, SETTINGS, LENGTHS, reference=reference))
    assert len(done.losses) == 3
    assert done.tokens_per_second > 0
    assert done.parameters == 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128 + 2 * 64) + 2 * 640 * 64 + 64
    assert reference or done.predicted["process"] > done.predicted["tensors"] > 0


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
    rows = train_gpu.figures("x", _outcome(tokens_per_second=15.0), _outcome(), 1.5, rate=1e12)
    assert rows[1]["value"] == 1.5
    assert rows[1]["holds"]
    assert rows[3]["value"] == pytest.approx(100 * 4 * 1e9 * 15 / 1e12)
