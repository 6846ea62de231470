"""On a card a base opened from its store is, tensor by tensor, what transformers and bitsandbytes put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.basemodel.find import find_model
from core.basemodel.stores import list_stores
from core.model.load import dtype_for, load_base
from core.model.stored import Stores
from core.settings import QuantizationSettings
from core.system.hardware import device
from tests.core.model.store_reference import holds_what_it_should, is_one_model, reference
from tests.tiny import tiny_model


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
@pytest.mark.parametrize("settings", [{"bits": 4, "type": "nf4", "double": True}, {"bits": 8}], ids=["4", "8"])
def test_a_store_holds_what_the_libraries_put_on_the_card(
    kind: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIBBLE_STORES", "always")
    folder, said = tiny_model(tmp_path / "base", kind), list[str]()
    (tmp_path / "stores").mkdir()
    found, here = find_model(str(folder)), device()
    assert here.kind == "cuda"
    expected = reference(folder, settings, dtype_for(here, found.model_type)[0], "cuda:0").requires_grad_(False)
    for turn in ("is kept", "was loaded from its quantised copy"):
        model = load_base(
            found, QuantizationSettings(**settings), here, stores=Stores(tmp_path / "stores", said.append)
        )
        assert turn in said[-1]
        holds_what_it_should(model, expected, settings)
        is_one_model(model, expected)
        assert {each.device for each in model.parameters()} == {torch.device("cuda:0")}
    assert len(list_stores(tmp_path / "stores")) == 1
