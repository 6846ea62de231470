"""Counts a program's tensors: every storage as it is made and freed, each in one category, and the peak.

It works on meta tensors and on real ones: a trace and a real run are counted by the same code. Sizes are rounded up to
what the allocator hands out (512 bytes in torch's CUDA allocator).
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GRAIN = 512
CATEGORIES = ("weights", "quant_constants", "adapters", "gradients", "optimizer", "activations", "logits", "workspace")


class Counter(TorchDispatchMode):
    """Live storages, in bytes by category; `peak` is the most at once, `at_peak` what it was made of.

    Use it as a context manager around the program; `own` names what exists already, `during` the parts of the program.
    """

    def __init__(self, run: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any] | None = None) -> None:
        """`run` is called in place of the operators, with the operator and its arguments."""
        super().__init__()
        self._run = run
        self.now = 0
        self.peak = 0
        self.by_category = dict.fromkeys(CATEGORIES, 0)
        self.at_peak = dict(self.by_category)
        self._category: str | Callable[[], str] = "workspace"
        self._known: dict[int, list[Any]] = {}  # by the storage's address: category, size, the weak reference

    def own(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        """Count tensors that exist already, or move them to `category` where they are counted."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            known = self._known.get(storage._cdata)
            if known is None:
                self._born(storage, category)
            else:
                self._add(known[0], -known[1])
                known[0] = category
                self._add(category, known[1])
        self._note_peak()

    @contextmanager
    def during(self, category: str | Callable[[], str]) -> Iterator[None]:
        """What is made inside is of `category`, or of the one that it returns at that moment."""
        before, self._category = self._category, category
        try:
            yield
        finally:
            self._category = before

    def start_peak(self) -> None:
        """Forget the peak up to now."""
        self.peak, self.at_peak = self.now, dict(self.by_category)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count the storages that it made."""
        result = self._run(func, args, kwargs or {}) if self._run is not None else func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    category = self._category if isinstance(self._category, str) else self._category()
                    self._born(storage, category)
        self._note_peak()
        return result

    def _born(self, storage: torch.UntypedStorage, category: str) -> None:
        size = -(-storage.nbytes() // GRAIN) * GRAIN
        address = storage._cdata
        self._known[address] = [category, size, weakref.ref(storage, lambda _: self._died(address))]
        self._add(category, size)

    def _died(self, address: int) -> None:
        known = self._known.pop(address, None)
        if known is not None:
            self._add(known[0], -known[1])

    def _add(self, category: str, size: int) -> None:
        self.by_category[category] += size
        self.now += size

    def _note_peak(self) -> None:
        if self.now > self.peak:
            self.peak = self.now
            self.at_peak = dict(self.by_category)
