"""Loads a base from its store where there is one, makes it where one is wanted, and else loads it as ever."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.basemodel.find import FoundModel
from core.basemodel.store_index import StoreError
from core.basemodel.stores import StoreKey, delete_store, find_store, store_key, wants_store
from core.model.fit import refuse_misfit
from core.model.store_parts import name_of
from core.model.store_read import opening
from core.model.store_write import make_store
from core.recipe import QuantizationSettings
from core.sizes import show_bytes

# The devices whose packed numbers are kept.
KINDS = ("cpu", "cuda")
Loaded = tuple[Any, dict[str, Any]]


@dataclass(frozen=True)
class Stores:
    """Where stores are kept, and who is told what happens to them."""

    folder: Path
    report: Callable[[str], None] = lambda said: None


def load_stored(
    load: Callable[[], Loaded],
    found: FoundModel,
    settings: QuantizationSettings,
    place: tuple[torch.device, torch.dtype],
    stores: Stores,
) -> Loaded:
    """The model and transformers' account of loading it; `load` calls `from_pretrained`, for `place`.

    A store that cannot be used is deleted and made anew. Where none can be made, that is reported, and the base's own
    files are read. Raises ModelError, and what `load` raises.
    """
    device, dtype = place
    try:
        key = store_key(found, settings, name_of(dtype), device.type)
        loaded = _opened(load, device, key, stores)
        if loaded is None and wants_store(found, settings, stores.folder):
            refuse_misfit(found)
            made = make_store(load, stores.folder, key, stores.report)
            loaded = _opened(load, device, key, stores, made)
        if loaded is not None:
            return loaded
    except StoreError as error:
        stores.report(f"{error} {found.label} is loaded from its own files.")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        stores.report(f"Quantised copies cannot be read: {reason}. {found.label} is loaded from its own files.")
    refuse_misfit(found)
    return load()


def _opened(
    load: Callable[[], Loaded], device: torch.device, key: StoreKey, stores: Stores, made: bool = False
) -> Loaded | None:
    """The model from its store; None where there is none, or no longer, because it could not be used."""
    try:
        store = find_store(stores.folder, key)
        if store is None:
            return None
        with opening(store, device):
            loaded = load()
    except StoreError as error:
        own = f", and {key.label} is loaded from its own files" if made else ""
        stores.report(f"{error} It is deleted{own}.")
        with suppress(StoreError):
            delete_store(stores.folder, key.name)
        return None
    size = show_bytes(store.weights.stat().st_size)
    how = f"A quantised copy of {key.label} is kept, of {size}: later loads read it instead of the base's own files."
    stores.report(how if made else f"{key.label} was loaded from its quantised copy of {size}.")
    return loaded
