"""Token ids beyond the rows of a model's embeddings, which cannot be looked up.

A tokenizer may have tokens that its model was never resized for. Looking one up ends the process, on a GPU with an
assertion that names neither the token nor the row.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from core.basemodel.architectures import needs_code
from core.basemodel.find import FoundModel
from core.errors import ModelError, NibbleError
from core.model.meta import outline


def embedding_rows(found: FoundModel) -> int | None:
    """How many tokens `found` has embeddings for; None where its architecture cannot be built here."""
    if needs_code(found.config):
        rows = found.config.get("vocab_size")
        return rows if isinstance(rows, int) else None
    return _rows(json.dumps(found.config))


@lru_cache(maxsize=16)
def _rows(config: str) -> int | None:
    try:
        return rows_of(outline(json.loads(config), torch.bfloat16))
    except ModelError:
        return None


def rows_of(model: Any) -> int:
    """How many tokens a model has embeddings for."""
    return int(model.get_input_embeddings().weight.shape[0])


def beyond(ids: Sequence[int], rows: int | None) -> list[int]:
    """Those of `ids` that have no row, each once, rising."""
    if rows is None or not len(ids) or max(ids) < rows:
        return []
    return sorted({token for token in ids if token >= rows})


def unknown_token(token: int, tokenizer: Any, rows: int) -> str:
    """What is wrong with one, for a person: "the token '<tool>' has the id 32,000, and …"."""
    name = tokenizer.convert_ids_to_tokens(token)
    return f"the token {name!r} has the id {token:,}, but the model has embeddings only for the ids 0 to {rows - 1:,}"


def refuse_beyond(ids: Sequence[int], tokenizer: Any, rows: int, where: str) -> None:
    """Raise NibbleError where a token in `ids` cannot be looked up; `where` is what they are of: 'The conversation'."""
    odd = beyond(ids, rows)
    if odd:
        raise NibbleError(
            f"{where} cannot be read by this model: {unknown_token(odd[0], tokenizer, rows)}. Remove that token, or "
            f"choose the model that this tokenizer was made for."
        )


def safe_pad(tokenizer: Any, rows: int) -> int:
    """The id to pad with: the tokenizer's own, or else one that the model has a row for."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((token for token in known if token is not None and 0 <= token < rows), 0)


def pad_of(found: FoundModel, tokenizer: Any) -> int | None:
    """The id that other programs should pad `found` with, as `safe_pad`; None where its tokenizer has no such token."""
    own, known = tokenizer.pad_token_id, found.config.get("vocab_size")
    if own is None or (isinstance(known, int) and own < known):
        return own if own is None else int(own)
    rows = embedding_rows(found)
    return int(own) if rows is None else safe_pad(tokenizer, rows)
