"""Adapters over one base: loaded once, swapped by name, the least recently used dropped.

Each answers as it would alone over a fresh base (plain PEFT's answer), whatever was loaded before it. Those that put
matrices over linear layers (LoRA, rsLoRA, DoRA) are held together, and with them those that bring a copy of the same
modules or are laid over the same fused weights. Any other is loaded after all are taken off the base again; the weights
of the base that its file writes over are kept meanwhile, and put back.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict

from core.basemodel.find import FoundModel
from core.chat.adapter_fit import Bare, Footing, gone, name_of, refuse_adapter, shapes_of
from core.errors import ModelError
from core.model.load import is_out_of_memory
from core.text.library_errors import telling_line
from core.untrusted.adapter_files import WEIGHTS

MOST_HELD = 8
Held = tuple[str, int, int]


class AdapterLost(ModelError):
    """An adapter failed while it was loaded: the base may be damaged and must be loaded again."""


class Adapters:
    """One base in memory and the adapters over it. `use` gives the model to generate with."""

    def __init__(self, base: Any, found: FoundModel, most_held: int = MOST_HELD) -> None:
        self.base, self.found, self.most_held = base, found, most_held
        self._bare = Bare(dict(base.named_modules()), dict(base.named_parameters()))
        self._over: PeftModel | None = None
        self._held: OrderedDict[Held, str] = OrderedDict()
        self._footing: Footing | None = None  # that of all that are held
        self._written_over: dict[str, torch.Tensor] = {}
        self._active: str | None = None
        self._loaded = 0

    def use(self, folder: Path | None) -> Any:
        """The model with the adapter in `folder`, or the base alone. Raises ModelError, AdapterLost."""
        if folder is None:
            return self._alone()
        held = _identity(folder)
        if held not in self._held:
            footing = refuse_adapter(folder, self._bare, self.found)
            if self._footing is not None and not footing.beside(self._footing):
                self._take_off()
            self._load(folder, held, footing)
        self._held.move_to_end(held)
        self._activate(self._held[held])
        self._let_go(folder, held)
        return self._over

    def forget_others(self) -> None:
        """Drop every adapter but the one in use."""
        while len(self._held) > 1:
            self._drop(next(iter(self._held)))

    def _alone(self) -> Any:
        if self._footing is not None and self._footing.alone:
            self._take_off()
        elif self._over is not None and self._active is not None:
            self._over.base_model.disable_adapter_layers()
            self._active = None
        return self._over or self.base

    def _activate(self, name: str) -> None:
        assert self._over is not None
        if self._active == name:
            return
        if self._active is None:
            self._over.base_model.enable_adapter_layers()
        self._over.set_adapter(name, inference_mode=True)
        self._active = name

    def _load(self, folder: Path, held: Held, footing: Footing) -> None:
        self._loaded += 1
        name = f"adapter_{self._loaded:04d}"
        where = str(self.base.device)
        own = self._bare.weights  # what the adapter's file writes over is kept in CPU memory
        self._written_over = {name: own[name].detach().to("cpu", copy=True) for name in footing.writes}
        try:
            if self._over is None:
                self._over = PeftModel.from_pretrained(self.base, folder, adapter_name=name, torch_device=where)
                self._active = name
            else:
                if self._active is None:  # layers that the new one adds begin enabled, and so must all be
                    self._over.base_model.enable_adapter_layers()
                    self._active = ""
                self._over.load_adapter(folder, name, torch_device=where)
            self._refuse_half(folder, name)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if not (folder / WEIGHTS).is_file():
                raise AdapterLost(gone(folder)) from None
            raise AdapterLost(f"The adapter {name_of(folder)} cannot be loaded: {telling_line(error)}.") from None
        self._over.eval()
        self._held[held], self._footing = name, footing

    def _refuse_half(self, folder: Path, name: str) -> None:
        """Raise ModelError where the file lacks a matrix: PEFT only warns, and leaves it random."""
        wanted = set(get_peft_model_state_dict(self._over, adapter_name=name, save_embedding_layers=False))
        missing = sorted(wanted - set(shapes_of(folder)))
        if missing:
            raise ModelError(f"its file does not contain {missing[0]}")

    def _take_off(self) -> None:
        """Restore the base as it was loaded, without adapters."""
        assert self._over is not None
        for name in self._held.values():
            self._over.delete_adapter(name)  # one that is still there, PEFT would leave in place of what it copied
        self._over.unload()
        for name, kept in self._written_over.items():
            self._bare.weights[name].data.copy_(kept)
        self._over = self._footing = self._active = None
        self._written_over = {}
        self._held.clear()

    def _let_go(self, folder: Path, held: Held) -> None:
        """Drop what `folder` held before, and the least recently used where there are too many."""
        for old in [each for each in self._held if each[0] == held[0] and each != held]:
            self._drop(old)
        while len(self._held) > self.most_held:
            self._drop(next(iter(self._held)))

    def _drop(self, held: Held) -> None:
        assert self._over is not None
        self._over.delete_adapter(self._held.pop(held))


def _identity(folder: Path) -> Held:
    """Tells two adapters in the same folder apart: a resumed run writes another one there. Raises ModelError."""
    try:
        stat = (folder / WEIGHTS).stat()
    except OSError:
        raise ModelError(gone(folder)) from None
    return str(folder), stat.st_mtime_ns, stat.st_size
