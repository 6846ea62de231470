"""Layers that visit the card: the resident model's numbers bit for bit, less memory, and no race between streams.

Copies on side streams are put off until somebody waits for them, fresh memory holds NaN, and a use that did not wait for
another stream is an error.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.model.stream import from_file as from_file_module
from core.model.stream.from_file import FromFile, _Staging
from core.model.stream.in_ram import SMALLEST_CHUNK, InRam
from core.model.stream.stream import LayerStream, stream_layers
from core.system.hardware import Device
from tests.core.model.stream.passes import adapted, from_file, plain_steps, same, tokenizer_of, trainer_steps
from tests.gpu.machines import on
from tests.gpu.mutate import mutate
from tests.gpu_standin.install import figures
from tests.tiny import tiny_model

CARD = Device("cuda", "RTX 3060", 0, 0)
LAYERS = 5
BITS: dict[str, dict[str, Any]] = {
    "NF4, constants quantised": {"bits": 4},
    "NF4": {"bits": 4, "double": False},
    "8 bits": {"bits": 8},
    "16 bits": {"bits": 16},
}
FROM = ("RAM", "a file")
Open = Callable[..., LayerStream]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of five layers."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=LAYERS)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Open]:
    """What streams so many layers of a model, from RAM or from a file, and closes it after the test."""
    made: list[LayerStream] = []

    def of(model: Any, layers: int = LAYERS, source: str = "RAM", report: Callable[[str], object] = pytest.fail):
        ram = lambda _: InRam(torch.device("cuda:0"), report)  # noqa: E731
        made.append(stream_layers(model, ram if source == "RAM" else from_file(tmp_path / "streamed", CARD)))
        made[-1].settle(layers)
        return made[-1]

    yield of
    for each in made:
        each.close()


@pytest.mark.parametrize("source", FROM)
@pytest.mark.parametrize("layers", [4, 5], ids="{} layers".format)
@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
def test_numbers_are_the_resident_models(bits, layers, source, model, stream) -> None:
    expected = plain_steps(adapted(model, CARD, **bits, targets="q_v"))
    ours = adapted(model, CARD, **bits, targets="q_v")
    before = figures().copies_put_off
    stream(ours, layers, source)
    assert same(plain_steps(ours), expected)
    assert figures().copies_put_off > before


@pytest.mark.parametrize("source", FROM)
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(
    "more", [{"fused_lora": True}, {"offload": True}, {"packed": False}], ids=["fused", "offloaded", "padded"]
)
def test_the_trainers_numbers_are(more, bits, source, model, stream, tmp_path) -> None:
    tokenizer, dropout = tokenizer_of(model), {"dropout": 0.2}
    expected = trainer_steps(adapted(model, CARD, bits, **dropout), tokenizer, tmp_path, device="cuda", **more)
    ours = adapted(model, CARD, bits, **dropout)
    stream(ours, LAYERS, source)
    assert same(trainer_steps(ours, tokenizer, tmp_path, device="cuda", **more), expected)
