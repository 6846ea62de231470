"""Layers that visit the card: the resident model's numbers bit for bit, less memory, and no race between streams.

Copies on side streams are put off until somebody waits for them, fresh memory holds NaN, and a use that did not wait
for another stream is an error.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.model.stream import from_file as from_file_module
from core.model.stream.from_file import FromFile, _Staging
from core.model.stream.in_ram import SMALLEST_CHUNK, InRam
from core.model.stream.ring import Ring
from core.model.stream.stream import LayerStream, stream_layers
from core.system.hardware import Device
from tests.core.model.stream.passes import (
    BITS,
    LAYERS,
    adapted,
    from_file,
    plain_steps,
    same,
    tokenizer_of,
    trainer_steps,
)
from tests.gpu.machines import on
from tests.gpu.mutate import mutate
from tests.gpu_standin.install import figures
from tests.tiny import tiny_model

CARD = Device("cuda", "RTX 3060", 0, 0)
FROM = ("RAM", "a file")
Open = Callable[..., LayerStream]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of five layers."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=LAYERS)


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """What streams so many layers of a model, from RAM or from a file, and closes it after the test."""
    made: list[LayerStream] = []
    monkeypatch.setattr(from_file_module, "STAGING_BYTES", 4096)  # each block of these small ones in many parts

    def of(model: Any, layers: int = LAYERS, source: str = "RAM", report: Callable[[str], object] = pytest.fail):
        ram = lambda _: InRam(torch.device("cuda:0"), report)  # noqa: E731
        made.append(stream_layers(model, ram if source == "RAM" else from_file(tmp_path / "streamed", CARD)))
        made[-1].settle(layers)
        return made[-1]

    yield of
    for each in made:
        each.close()


def soon(values: Iterable[Any], *chosen: Any, ids: Iterable[str] | None = None) -> list[Any]:
    """Parameters of which those that are not `chosen` are for the full test."""
    names = list(ids) if ids is not None else [str(each) for each in values]
    marks = [() if name in chosen else (pytest.mark.full,) for name in names]
    return [pytest.param(value, id=name, marks=mark) for value, name, mark in zip(values, names, marks, strict=True)]


@pytest.mark.parametrize("source", FROM)
@pytest.mark.parametrize("layers", soon([4, 5], "5"))
@pytest.mark.parametrize("bits", soon(BITS.values(), "NF4, constants quantised", ids=BITS))
def test_numbers_are_the_resident_models(bits, layers, source, model, stream) -> None:
    expected = plain_steps(adapted(model, CARD, **bits, targets="q_v"))
    ours = adapted(model, CARD, **bits, targets="q_v")
    before = figures().copies_put_off
    stream(ours, layers, source)
    assert same(plain_steps(ours), expected)
    assert figures().copies_put_off > before


WAYS = {"fused": {"fused_lora": True}, "offloaded": {"offload": True}, "padded": {"packed": False}}


@pytest.mark.parametrize("source", soon(FROM, "RAM"))
@pytest.mark.parametrize("bits", soon([4, 8, 16], "4"))
@pytest.mark.parametrize("more", soon(WAYS.values(), "fused", "offloaded", ids=WAYS))
def test_the_trainers_numbers_are(more, bits, source, model, stream, tmp_path) -> None:
    tokenizer, dropout = tokenizer_of(model), {"dropout": 0.2}
    expected = trainer_steps(adapted(model, CARD, bits, **dropout), tokenizer, tmp_path, device="cuda", **more)
    ours = adapted(model, CARD, bits, **dropout)
    stream(ours, LAYERS, source)
    assert same(trainer_steps(ours, tokenizer, tmp_path, device="cuda", **more), expected)


def test_a_mixtures_numbers_are(stream, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", "qwen3_moe", num_hidden_layers=4)
    expected = plain_steps(adapted(folder, CARD), steps=2)
    ours = adapted(folder, CARD)
    stream(ours, 4)
    assert same(plain_steps(ours, steps=2), expected)


@pytest.mark.parametrize("layers", [4, 5])
def test_generation_goes_around(layers, model, stream) -> None:
    ids = torch.arange(3, 20)[None].cuda()
    expected = adapted(model, CARD).eval().generate(input_ids=ids, max_new_tokens=5, do_sample=False)
    ours = adapted(model, CARD).eval()
    stream(ours, layers)
    assert torch.equal(ours.generate(input_ids=ids, max_new_tokens=5, do_sample=False), expected)


# ---- memory


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_the_peak_falls_by_the_streamed_layers_less_the_slots(bits, stream, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", hidden_size=256, intermediate_size=512, num_hidden_layers=6)

    def peak(model: Any) -> int:
        plain_steps(model, steps=1)  # what the libraries keep is there
        torch.cuda.reset_peak_memory_stats()
        plain_steps(model, steps=1)
        return torch.cuda.max_memory_allocated()

    ours = adapted(folder, CARD, bits)
    resident = peak(ours)
    made = stream(ours, 4)
    block = made.layers[0].block.bytes
    assert {layer.block.bytes for layer in made.layers} == {block}
    # Each block begins and ends as the allocator's do, but that it is rounded up to 4 KiB.
    assert resident - peak(ours) == pytest.approx((4 - 2) * block, abs=4 * 4096)
    made.settle(0)
    assert resident == pytest.approx(peak(ours), abs=6 * 4096)


def test_pinned_memory_is_not_rounded_up_to_twice_the_blocks(stream, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", hidden_size=256, intermediate_size=700, num_hidden_layers=4)
    before = figures().pinned
    made = stream(adapted(folder, CARD, 16), 4)
    taken, blocks = figures().pinned - before, 4 * made.layers[0].block.bytes
    assert blocks <= taken < blocks + 4 * SMALLEST_CHUNK
    made.settle(0)
    assert figures().pinned == before


@on(pin_limit=300_000)
def test_what_cannot_be_pinned_lies_in_ordinary_memory(model, stream) -> None:
    expected = plain_steps(adapted(model, CARD, 16))
    ours, said = adapted(model, CARD, 16), list[str]()
    stream(ours, LAYERS, report=said.append)
    assert same(plain_steps(ours), expected)
    assert len(said) == 1 and said[0].startswith("The system pins no more memory")


# ---- what the tests above are good for: each undoes one thing that is needed


@pytest.fixture(scope="module")
def expected(model: Path) -> Any:
    """The numbers of the resident model, with adapters on q and v alone: the last product has none."""
    return plain_steps(adapted(model, CARD, targets="q_v"))


def steps(model: Path, stream: Open, source: str) -> Any:
    """The numbers of the streamed model."""
    ours = adapted(model, CARD, targets="q_v")
    stream(ours, LAYERS, source)
    return plain_steps(ours)


@pytest.mark.parametrize("source", FROM)
def test_without_a_wait_for_the_copy_there_is_a_race(source, model, stream, monkeypatch) -> None:
    mutate(monkeypatch, LayerStream, "_have", "self._ring.wait(place)", "pass")
    with pytest.raises(RuntimeError, match="race: stream 0 reads"):
        steps(model, stream, source)


@pytest.mark.parametrize(
    ("owner", "name", "what", "source"),
    [
        (InRam, "bring", "self._stream.wait_event(after)", "RAM"),
        (FromFile, "_stage", "card.stream.wait_event(after)", "a file"),
    ],
    ids=FROM,
)
def test_without_an_event_before_a_slot_is_overwritten_too(owner, name, what, source, model, stream, monkeypatch):
    mutate(monkeypatch, owner, name, what, "pass")
    with pytest.raises(RuntimeError, match="race: stream [0-9]+ writes"):
        steps(model, stream, source)


def test_with_staging_that_is_filled_before_it_is_copied_numbers_differ(model, expected, stream, monkeypatch) -> None:
    assert same(steps(model, stream, "a file"), expected)
    mutate(monkeypatch, _Staging, "next", "self._copied[self._turn].synchronize()", "pass")
    assert not same_or_nan(steps(model, stream, "a file"), expected)


@pytest.mark.parametrize("source", FROM)
def test_without_the_gradients_hook_numbers_differ(source, model, expected, stream, monkeypatch) -> None:
    mutate(monkeypatch, LayerStream, "_after_forward", "first.register_hook(", "(")
    assert not same_or_nan(steps(model, stream, source), expected)


def test_around_an_odd_number_of_layers_the_first_waits_for_the_lasts_slot(model, stream, monkeypatch) -> None:
    mutate(monkeypatch, Ring, "after", " or self._slot(then) in taken", "")
    with pytest.raises(RuntimeError, match="race: stream 0 reads"):
        test_generation_goes_around(LAYERS, model, stream)


def same_or_nan(one: Any, other: Any) -> bool:
    """As `same`, where numbers may be none."""
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)
