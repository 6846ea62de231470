"""Where each token of a byte-level tokenizer ends in the text, by the token's own bytes: exact, in a single pass.

Offsets as tokenizers report them leave white space out (`trim_offsets`), so they cannot tell whether a token reaches
over a border; the bytes can. If they do not add up to the text, the tokenizer has changed it, and nothing is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt


class TokenEnds:
    """How many bytes of text each token stands for."""

    def __init__(self, widths: npt.NDArray[np.int64]) -> None:
        self._widths = widths

    @classmethod
    def of(cls, tokenizer: Any) -> TokenEnds | None:
        """None for a tokenizer whose tokens are not plain bytes."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
        if not decoder or decoder["type"] != "ByteLevel":
            return None
        widths: npt.NDArray[np.int64] = np.zeros(max(tokenizer.get_vocab().values(), default=0) + 1, dtype=np.int64)
        for token, index in tokenizer.get_vocab().items():
            widths[index] = len(token)  # one letter of GPT-2's alphabet stands for one byte
        for index, added in tokenizer.added_tokens_decoder.items():
            widths[index] = len(added.content.encode())
        return cls(widths)

    def counts(self, ids: Sequence[int], segments: Sequence[str]) -> list[int] | None:
        """How many of `ids` make up each of the `segments` that the text was cut into; None where one reaches over."""
        ends = np.cumsum(self._widths[np.asarray(ids, dtype=np.int64)]) if ids else np.zeros(0, dtype=np.int64)
        borders = list(accumulate(len(segment) if segment.isascii() else len(segment.encode()) for segment in segments))
        if (int(ends[-1]) if ids else 0) != (borders[-1] if borders else 0):
            return None
        places: list[int] = np.searchsorted(ends, np.array(borders, dtype=np.int64), side="right").astype(int).tolist()
        if any(place == 0 or ends[place - 1] != border for place, border in zip(places, borders, strict=True)):
            return None
        return [after - before for before, after in pairwise([0, *places])]
