"""Packing changes nothing but speed: no conversation sees another, and the loss and gradient are the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.data.batches import (
    MicroBatches,
    balanced,
    best_fit,
    counted,
    data_order,
    dealt,
    packed_batch,
    padded_batch,
    steps_for,
)
from core.data.conversation import Conversation
from core.data.rendering.render import IGNORED, Rendered, Renderer
from core.recipe import DataSettings
from core.step.packing import packing_is_exact
from tests.core.data.rendered_rows import render_one, rendered_rows
from tests.tiny import chat_rows, tiny_model


def test_every_conversation_lies_in_one_pack_once() -> None:
    lengths = [100, 90, 30, 20, 5, 200]
    packs = best_fit(lengths, 256)
    assert sorted(index for pack in packs for index in pack) == list(range(6))
    assert all(sum(lengths[index] for index in pack) <= 256 for pack in packs)


def test_packs_are_as_few_as_they_can_be_and_even() -> None:
    lengths = [30] * 15  # 450 tokens: best fit would fill one pack with 240 and leave 210 to the other
    packs = balanced(lengths, 256)
    sums = sorted(sum(lengths[index] for index in pack) for pack in packs)
    assert sums == [210, 240]
    uneven = [200, 150, 60, 40, 50]
    assert sorted(sum(uneven[index] for index in pack) for pack in balanced(uneven, 256)) == [250, 250]
    full = [128, 128, 100, 100, 56]  # evenly dealt this would overflow; best fit's own packs stand
    assert max(sum(full[index] for index in pack) for pack in balanced(full, 256)) <= 256


def test_a_pack_holds_the_tokens_positions_and_targets_of_its_conversations() -> None:
    batch = packed_batch(rendered_rows(4, 3, 300))
    assert int(batch["real_tokens"]) == 307
    assert batch["input_ids"].shape == batch["labels"].shape == batch["position_ids"].shape
    assert batch["position_ids"][1, :7].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch["labels"][1, :7].tolist() == [IGNORED, 4, 5, 6, IGNORED, 4, 5]
    assert batch["labels"][1, 7:].unique().tolist() == [IGNORED]


def test_the_order_is_seeded_and_goes_through_all_rows_before_any_twice() -> None:
    order = data_order(10, steps=5, effective_batch=4, seed=1)
    assert order == data_order(10, 5, 4, seed=1) != data_order(10, 5, 4, seed=2)
    stream = [row for step in order for row in step]
    assert sorted(stream[:10]) == sorted(stream[10:20]) == list(range(10))
    assert {len(step) for step in order} == {4}


def test_padded_conversations_of_like_length_lie_together_and_stay_in_their_step() -> None:
    rows = rendered_rows(4, 90, 5, 80, 70, 6, 60, 7)
    order = [[0, 1, 2, 3], [4, 5, 6, 7], [7, 1, 0, 2]]
    assert MicroBatches(rows, order, 2, packed=True).order == order
    padded = MicroBatches(rows, order, 2, packed=False)
    assert padded.order == [[1, 3, 2, 0], [4, 6, 7, 5], [1, 7, 2, 0]]
    assert [tuple(batch["input_ids"].shape) for batch in padded] == [(2, 90), (2, 5), (2, 70), (2, 7), (2, 90), (2, 5)]


def test_packed_conversations_lie_together_only_where_that_saves_room_and_takes_no_more_at_once() -> None:
    lengths = [900, 300, 900, 300, 50, 25, 30, 35]
    assert dealt([0, 1, 2, 3], lengths, 2, packed=True) == [
        0,
        2,
        1,
        3,
    ]  # 1,800 and 600 positions instead of twice 1,800
    assert dealt([3, 2, 1, 0], lengths, 4, packed=True) == [3, 2, 1, 0]
    assert dealt([5, 4, 7, 6], lengths, 2, packed=True) == [5, 4, 7, 6]  # each pair fits a pack in any order
    larger = [100, 15, 95, 50, 60, 55]  # 220 and 210 positions; by length 300 and 120
    assert dealt([0, 1, 2, 3, 4, 5], larger, 3, packed=True) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("collate", [packed_batch, padded_batch])
def test_weights_lie_where_their_tokens_lie(collate) -> None:
    rows = rendered_rows(4, 3)
    assert "weights" not in collate(rows)
    weighted = Rendered(3, [7, 8, 9], [False, True, True], 3, [0.0, 0.5, 0.25])
    batch = collate([*rows, weighted])
    assert batch["weights"][batch["input_ids"] == 9].tolist() == [0.25]
    assert batch["weights"][batch["input_ids"] == 8].tolist() == [0.5]
    assert batch["weights"][batch["input_ids"] == 4].unique().tolist() == [1.0]
    assert float(counted(batch)) == 3 + 2 + 0.75
    assert float(counted(collate(rows))) == 5


def test_steps_are_epochs_over_your_rows() -> None:
    assert steps_for(rows=100, effective_batch=16, epochs=3) == 19
    assert steps_for(rows=1, effective_batch=16, epochs=0.01) == 1


def _loss_and_gradients(model, batches, tokens: int):
    model.zero_grad()
    total = 0.0
    for batch in batches:
        inputs = {key: value for key, value in batch.items() if key not in ("real_tokens", "labels")}
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        targets = batch["labels"][:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_packed_padded_and_one_by_one_give_the_same_loss_and_gradient(adapted, tokenizer) -> None:
    renderer = Renderer(tokenizer, DataSettings())
    rows = [render_one(renderer, Conversation(1, row["messages"]), 512) for row in chat_rows(8)]
    tokens = sum(sum(row.trained[1:]) for row in rows)
    torch.manual_seed(1)
    for parameter in adapted.parameters():  # B is zero at first, and then A has no gradient to compare
        if parameter.requires_grad:
            parameter.data.normal_(std=0.05)
    packed = _loss_and_gradients(adapted, [packed_batch(rows)], tokens)
    padded = _loss_and_gradients(adapted, [padded_batch(rows)], tokens)
    single = _loss_and_gradients(adapted, [packed_batch([row]) for row in rows], tokens)
    for loss, gradients in (padded, single):
        assert packed[0] == pytest.approx(loss, abs=1e-5)
        for ours, theirs in zip(packed[1], gradients, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


def test_packing_is_proved_on_a_model_that_keeps_conversations_apart(adapted) -> None:
    assert packing_is_exact(adapted)


def test_packing_is_refused_where_positions_come_from_elsewhere(adapted, monkeypatch) -> None:
    """A model that overlooks `position_ids` lets the second conversation see the first."""
    forward = adapted.forward
    monkeypatch.setattr(adapted, "forward", lambda **inputs: forward(**{**inputs, "position_ids": None}))
    assert not packing_is_exact(adapted)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "gpt_neox"])
def test_what_the_proof_says_holds_for_real_architectures(architecture: str, tmp_path) -> None:
    from core.basemodel.find import find_model
    from core.model.load import load_base
    from core.recipe import QuantizationSettings
    from core.system.hardware import Device

    folder = tiny_model(tmp_path / architecture, architecture)
    model = load_base(find_model(str(folder)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33))
    assert packing_is_exact(model)


def test_what_is_counted_is_of_one_dtype_so_that_devices_can_add_it_up() -> None:
    plain, weighted = rendered_rows(20, 30)
    weighted = replace(weighted, weights=[0.5] * 30)
    assert {counted(packed_batch([each])).dtype for each in (plain, weighted)} == {torch.float32}
