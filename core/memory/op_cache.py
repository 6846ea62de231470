"""Caches what operators return for meta tensors: a model's layers repeat the same calls hundreds of times.

torch works out shapes in Python, which is most of a trace's time. A result is cached by the shapes, strides and types
of the arguments where the operator makes new tensors; after that, only empty ones like them are made.
"""

from typing import Any

import torch
from torch.utils._pytree import tree_leaves

MOST = 50_000
_UNKNOWN: Any = object()


class OpCache:
    """Remembers results. Call it with an operator and its arguments, as `operator(*args, **kwargs)` would be called."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `func` makes of the arguments."""
        try:
            key = (func, _marks(args), _marks(kwargs.items()))
            known = self._known.get(key, _UNKNOWN)
        except (_Real, TypeError):  # values that count, or that cannot be remembered
            return func(*args, **kwargs)
        if known is None:
            return func(*args, **kwargs)
        if known is not _UNKNOWN:
            return _made(known)
        result = func(*args, **kwargs)
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = _recipe(result, args, kwargs)
        return result


class _Real(Exception):
    """A tensor that is not a meta tensor."""


def _marks(values: Any) -> tuple[Any, ...]:
    return tuple([_mark(value) for value in values])


def _mark(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if not value.is_meta:
            raise _Real
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return _marks(value)
    return type(value), value  # 1, 1.0 and True are equal, and not the same


def _recipe(result: Any, args: Any, kwargs: Any) -> Any:
    """How to make tensors like `result`; None where it shares memory with an argument, or is not all meta tensors.

    Some operators return a view without saying so in their schema.
    """
    given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
    several = isinstance(result, (tuple, list))
    made = list(result) if several else [result]
    if not all(isinstance(each, torch.Tensor) and each.is_meta for each in made):
        return None
    storages = [each.untyped_storage() for each in made]
    addresses = {each._cdata for each in storages}
    if len(addresses) < len(made) or addresses & given:
        return None
    if any(
        each.storage_offset() or each.nbytes != storage.nbytes() for each, storage in zip(made, storages, strict=True)
    ):
        return None
    return (type(result) if several else None), [(each.shape, each.stride(), each.dtype) for each in made]


def _made(recipe: Any) -> Any:
    kind, tensors = recipe
    made = [torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in tensors]
    return made[0] if kind is None else kind(made)
