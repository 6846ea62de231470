"""What a base's weights take: the formula of the floor and of the chat agrees with the traced tensors."""

from __future__ import annotations

import pytest
import torch

from core.basemodel.find import find_model
from core.memory.budget import weight_bytes
from core.memory.meta_model import meta_base
from core.memory.tensor_counter import Counter
from core.memory.trace import own_model
from core.recipe import QuantizationSettings


@pytest.mark.parametrize(("bits", "double"), [(4, True), (4, False), (8, True), (16, True)])
def test_the_formula_is_what_is_traced(bits: int, double: bool) -> None:
    found, settings = find_model("starter"), QuantizationSettings(bits=bits, double=double)
    counter, model = Counter(), meta_base(found.config, settings, torch.bfloat16)
    own_model(counter, model)
    traced = counter.by_category["weights"] + counter.by_category["quant_constants"]
    assert weight_bytes(found, settings, 2) == pytest.approx(traced, rel=0.03)
