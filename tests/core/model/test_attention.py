"""Key heads shared by several query heads are repeated where the kernels want them so."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations import sdpa_attention

from core.model.attention import repeat_keys


def test_key_heads_are_repeated_once_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)  # so that it is put back
    key = torch.empty(1, 2, 32, 64, device="meta")
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key)
    repeat_keys()
    assert not sdpa_attention.use_gqa_in_sdpa(None, key, key)
