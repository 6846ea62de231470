"""What a stream does besides being exact: what moves, what stays, what is freed, and what it says where it cannot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from core.errors import ModelError
from core.model.load import attach_lora
from core.model.lora_init import weight_of
from core.model.stream.from_file import FromFile
from core.model.stream.in_ram import InRam
from core.model.stream.layers import BLOCK_GRAIN, streamable
from core.model.stream.ring import Ring, slot_sizes
from core.model.stream.source import UnreadableBlock
from core.model.stream.stream import LayerStream, spread, stream_layers, stream_of
from core.recipe import LoraSettings
from tests.core.model.stream.passes import adapted, from_file, plain_steps, same, streamed
from tests.core.model.tiny_adapted import base_of
from tests.gpu.mutate import mutate
from tests.tiny import tiny_model

LAYERS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of five layers."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def expected(model: Path) -> Any:
    """The numbers of the resident model, with adapters on q and v alone: the last product has none."""
    return plain_steps(adapted(model, targets="q_v"))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that takes longer than a layer computes."""
    read = FromFile._read

    def slowly(self: FromFile, *given: Any) -> None:
        time.sleep(0.02)
        read(self, *given)

    monkeypatch.setattr(FromFile, "_read", slowly)
    yield


def steps(model: Path, folder: Path, layers: int = LAYERS) -> Any:
    """The numbers of the streamed model."""
    ours = adapted(model, targets="q_v")
    streamed(ours, folder, layers)
    return plain_steps(ours)


# ---- what moves


def test_a_pass_moves_each_block_twice_but_those_that_are_in_the_slots_when_it_turns(model, tmp_path) -> None:
    ours = adapted(model)
    stream = streamed(ours, tmp_path, LAYERS)
    plain_steps(ours, steps=1)
    first, block = stream.bytes_moved, stream.layers[0].block.bytes
    assert first == (LAYERS + LAYERS - 2) * block
    plain_steps(ours, steps=2)
    assert stream.bytes_moved - first == 2 * 2 * (LAYERS - 2) * block


def test_what_comes_next_is_on_its_way_while_a_layer_computes(model, tmp_path, monkeypatch) -> None:
    asked: list[list[int]] = []
    bring = FromFile.bring

    def and_note(self: FromFile, number: int, *given: Any) -> Any:
        asked[-1].append(number)
        return bring(self, number, *given)

    monkeypatch.setattr(FromFile, "bring", and_note)
    ours = adapted(model)
    asked.append([])
    stream = streamed(ours, tmp_path, LAYERS)
    for layer in stream.layers:
        layer.module.register_forward_pre_hook(lambda *_: asked.append([]))
        layer.module.register_full_backward_pre_hook(lambda *_: asked.append([]))
    plain_steps(ours, steps=1)
    # Asked for before the layer begins; its own block is there but for the very first.
    assert asked[:6] == [[0, 1], [2], [3], [4], [], []]
    assert [each for each in asked[6:] if each] == [[2], [1], [0]]


def test_generation_goes_around(model, tmp_path) -> None:
    ids = torch.arange(3, 20)[None]
    resident = adapted(model).eval()
    expected = resident.generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    ours = adapted(model).eval()
    for layers in (LAYERS, LAYERS - 1):
        stream = stream_of(ours) or streamed(ours, tmp_path, layers)
        stream.settle(layers)
        assert torch.equal(ours.generate(input_ids=ids, max_new_tokens=5, do_sample=False), expected)
        # The first of a pass is there when it begins; where layers are odd in number, it visits the last one's slot.
        assert stream.bytes_moved == (5 * layers + (layers % 2 == 0)) * stream.layers[0].block.bytes


@pytest.mark.parametrize("layers", [1, 2, 7, 80])
def test_streamed_layers_are_spread_evenly(layers: int) -> None:
    for count in range(layers + 1):
        chosen = sorted(spread(layers, count))
        gaps = {after - before for before, after in zip(chosen, chosen[1:], strict=False)}
        assert len(chosen) == count and max(gaps, default=0) - min(gaps, default=0) <= 1
        assert all(0 <= each < layers for each in chosen)


def test_a_slot_is_as_large_as_what_visits_it() -> None:
    assert slot_sizes([5, 3, 9, 4], 2) == [9, 4]
    assert slot_sizes([5], 2) == [5]


# ---- what is where


def test_layers_come_and_go_between_steps(model, tmp_path) -> None:
    resident, ours = adapted(model), adapted(model)
    stream = streamed(ours, tmp_path, 3)
    for layers in (3, 5, 2, 0, 4, {0, 4}, 0):
        stream.settle(layers)
        assert same(plain_steps(ours, steps=1), plain_steps(resident, steps=1))


def test_a_streamed_layer_takes_no_memory_but_the_slots(model, tmp_path) -> None:
    ours = adapted(model)
    stream = streamed(ours, tmp_path, LAYERS)
    assert stream._ring is not None
    slots = {slot.untyped_storage().data_ptr() for slot in stream._ring.slots}
    assert len(slots) == 2
    for layer in stream.layers:
        assert {each.tensor.untyped_storage().data_ptr() for each in layer.held} <= slots
        assert layer.block.bytes % BLOCK_GRAIN == 0
        assert {each.part for each in layer.held} == {"data", "absmax", "nested_absmax"}
    stream.settle(1)
    assert stream._ring is not None and len(stream._ring.slots) == 1


def test_what_is_shared_small_or_trained_stays(model) -> None:
    ours = adapted(model, bits=16)
    base = ours.get_base_model()
    layers = base.model.layers
    layers[0].mlp.up_proj.base_layer.weight = layers[1].mlp.up_proj.base_layer.weight
    layers[2].mlp = layers[3].mlp
    names = [{each.parameter for each in layer.held} for layer in streamable(ours)]
    projections = {f"self_attn.{each}_proj.weight" for each in "qkvo"}
    whole = projections | {f"mlp.{each}_proj.weight" for each in ("gate", "up", "down")}
    parts = [whole - {"mlp.up_proj.weight"}] * 2 + [projections] * 2 + [whole]
    assert names == [{f"model.layers.{at}.{name}" for name in part} for at, part in enumerate(parts)]


def test_weights_of_a_streamed_layer_can_be_read_while_they_are_held(model, tmp_path) -> None:
    resident, ours = adapted(model), adapted(model)
    stream = streamed(ours, tmp_path, LAYERS)
    for at in (3, 0, 4, 1, 2):
        one, other = (each.get_base_model().model.layers[at].mlp.down_proj.base_layer for each in (resident, ours))
        with stream.holding(other):
            assert torch.equal(weight_of(other), weight_of(one))


@pytest.mark.parametrize("lora", [{"init": "pissa"}, {"init": "loftq"}, {}], ids=["pissa", "loftq", "default"])
def test_adapters_are_attached_to_a_base_that_streams_already(lora, model, tmp_path) -> None:
    def attached(layers: int) -> Any:
        base = base_of(model)
        if layers:
            streamed(base, tmp_path, layers)
        torch.manual_seed(0)
        return attach_lora(base, LoraSettings(rank=4, alpha=8, **lora), torch.float32)

    assert same(plain_steps(attached(LAYERS)), plain_steps(attached(0)))


def test_blocks_in_ram_serve_a_cpu_too(model, expected) -> None:
    ours = adapted(model, targets="q_v")
    stream = stream_layers(ours, lambda _: InRam(torch.device("cpu"), print))
    stream.settle(LAYERS)
    assert same(plain_steps(ours), expected)


def test_a_closed_stream_leaves_no_file_and_no_hooks(model, tmp_path) -> None:
    ours = adapted(model)
    stream = streamed(ours, tmp_path, LAYERS)
    plain_steps(ours, steps=1)
    assert stream_of(ours) is stream
    stream.close()
    assert not list(tmp_path.iterdir())
    assert not any(layer.module._forward_pre_hooks or layer.module._forward_hooks for layer in stream.layers)


# ---- where it cannot be


def test_a_model_without_layers_of_its_own_is_refused(tmp_path) -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(8, 8).requires_grad_(False)

    with pytest.raises(ModelError, match="none that are checkpointed one by one"):
        stream_layers(get_peft_model(Plain(), LoraConfig(target_modules=["proj"])), from_file(tmp_path))


def test_dora_is_refused(model, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"lora\.dora reads the weights"):
        stream_layers(adapted(model, dora=True), from_file(tmp_path))


def test_modules_of_a_layer_that_are_trained_whole_are_refused(model, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"lora\.extra_modules"):
        stream_layers(adapted(model, targets="q_v", extra_modules=["up_proj"]), from_file(tmp_path))


def test_a_file_that_was_cut_short_is_told_and_not_computed_with(model, expected, tmp_path) -> None:
    ours = adapted(model, targets="q_v")
    stream = streamed(ours, tmp_path, LAYERS)
    file = stream.source._file.fileno()
    whole = os.pread(file, LAYERS * stream.layers[0].block.bytes, 0)
    os.ftruncate(file, stream.layers[0].block.bytes * 3 + 100)
    with pytest.raises(UnreadableBlock, match="was cut short"):
        plain_steps(ours)
    os.pwrite(file, whole, 0)  # as when a network share comes back
    ours.zero_grad(set_to_none=True)
    assert same(plain_steps(ours), expected)


# ---- what the tests above are good for: each undoes one thing that is needed


def test_without_a_wait_numbers_differ(model, expected, tmp_path, slow, monkeypatch) -> None:
    assert same(steps(model, tmp_path / "sound"), expected)
    mutate(monkeypatch, LayerStream, "_have", "self._ring.wait(place)", "pass")
    assert not same_if_finite(steps(model, tmp_path), expected)


def test_without_the_gradients_hook_numbers_differ(model, expected, tmp_path, monkeypatch) -> None:
    """The hooks that transformers leaves outside of its checkpoint are not enough."""
    mutate(monkeypatch, LayerStream, "_after_forward", "first.register_hook(", "(")
    assert not same_if_finite(steps(model, tmp_path), expected)


def test_in_the_wrong_slot_numbers_differ(model, expected, tmp_path, monkeypatch) -> None:
    mutate(monkeypatch, Ring, "have", "self.block(place)", "self.slots[1 - slot][: self._sizes[place]]")
    assert not same_if_finite(steps(model, tmp_path), expected)


def test_with_what_comes_next_in_the_wrong_direction_nothing_is_on_its_way(model, tmp_path, monkeypatch) -> None:
    mutate(monkeypatch, Ring, "after", "place + step * more", "place - step * more")
    with pytest.raises(AssertionError):
        test_what_comes_next_is_on_its_way_while_a_layer_computes(model, tmp_path, monkeypatch)


def same_if_finite(one: Any, other: Any) -> bool:
    """As `same`, where numbers may have become infinite."""
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)
