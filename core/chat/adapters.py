"""Adapters over one base: loaded once, swapped by name, those not heard for longest let go.

The base's weights are never touched, so swapping back and forth changes nothing. What cannot be swapped so is refused
with a sentence: other kinds than LoRA, trained biases, starts that change the base (PEFT's own PiSSA, OLoRA, CorDA).
DoRA and modules trained whole are held by each adapter for itself.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from core.adapter_files import CONFIG, WEIGHTS, refuse_adapter_files
from core.build import is_out_of_memory
from core.errors import ModelError
from core.models import FoundModel
from core.train.manifest import MANIFEST

MOST_HELD = 8
_CHANGES_THE_BASE = ("pissa", "olora", "corda")
Held = tuple[str, int, int]


class AdapterLost(ModelError):
    """An adapter whose loading failed midway: the base under it is no longer to be trusted, and loaded anew."""


class Adapters:
    """One base in memory and the adapters over it. `use` gives the model that speaks."""

    def __init__(self, base: Any, found: FoundModel, most_held: int = MOST_HELD) -> None:
        self.base, self.found, self.most_held = base, found, most_held
        self._over: PeftModel | None = None
        self._held: OrderedDict[Held, str] = OrderedDict()
        self._active: str | None = None
        self._loaded = 0

    def use(self, folder: Path | None) -> Any:
        """The model with the adapter in `folder`, or the base alone. Raises ModelError, AdapterLost."""
        if folder is None:
            self._alone()
            return self._over or self.base
        held = _identity(folder)
        if held not in self._held:
            refuse_adapter(folder, self.base, self.found)
            self._load(folder, held)
        self._held.move_to_end(held)
        self._activate(self._held[held])
        self._let_go(folder, held)
        return self._over

    def forget_others(self) -> None:
        """Let go of every adapter but the one in use."""
        while len(self._held) > 1:
            self._drop(next(iter(self._held)))

    def _alone(self) -> None:
        if self._over is not None and self._active is not None:
            self._over.base_model.disable_adapter_layers()
            self._active = None

    def _activate(self, name: str) -> None:
        assert self._over is not None
        if self._active == name:
            return
        if self._active is None:
            self._over.base_model.enable_adapter_layers()
        self._over.set_adapter(name, inference_mode=True)
        self._active = name

    def _load(self, folder: Path, held: Held) -> None:
        self._loaded += 1
        name = f"adapter_{self._loaded:04d}"
        where = str(self.base.device)
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
                raise AdapterLost(_gone(folder)) from None
            raise AdapterLost(f"The adapter {_name(folder)} cannot be loaded: {_first_line(error)}") from None
        self._over.eval()
        self._held[held] = name

    def _refuse_half(self, folder: Path, name: str) -> None:
        """PEFT leaves at chance what the file does not hold, and only warns."""
        wanted = set(get_peft_model_state_dict(self._over, adapter_name=name, save_embedding_layers=False))
        missing = sorted(wanted - set(_shapes(folder)))
        if missing:
            raise ModelError(f"its file does not hold {missing[0]}")

    def _let_go(self, folder: Path, held: Held) -> None:
        """Away with what `folder` held before, and with the one not heard for longest where there are too many."""
        for old in [each for each in self._held if each[0] == held[0] and each != held]:
            self._drop(old)
        while len(self._held) > self.most_held:
            self._drop(next(iter(self._held)))

    def _drop(self, held: Held) -> None:
        assert self._over is not None
        self._over.delete_adapter(self._held.pop(held))


def _identity(folder: Path) -> Held:
    """A folder as it is now: a run that goes on writes another adapter into the same one. Raises ModelError."""
    try:
        stat = (folder / WEIGHTS).stat()
    except OSError:
        raise ModelError(_gone(folder)) from None
    return str(folder), stat.st_mtime_ns, stat.st_size


def _gone(folder: Path) -> str:
    return f"The adapter {_name(folder)} is gone: a run keeps only its newest checkpoints. Choose another."


def _name(folder: Path) -> str:
    """As a person knows it: a checkpoint by its step."""
    return f"of step {folder.parent.name}" if folder.name == "adapter" and folder.parent.name.isdigit() else folder.name


def refuse_adapter(folder: Path, base: Any, found: FoundModel) -> None:
    """Raise ModelError for an adapter that is damaged, of another base, or of a kind that cannot be swapped."""
    try:
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            raise ModelError(_gone(folder))
        config = refuse_adapter_files(folder)
        shapes = _shapes(folder)
    except ModelError:
        raise
    except Exception as error:  # safetensors raises an error of its own for a file that is cut short
        raise ModelError(f"The adapter {_name(folder)} cannot be read: {_first_line(error)}") from None
    _refuse_cut_short(folder)
    _refuse_kind(folder, config)
    _refuse_base(folder, config, shapes, base, found)


def _refuse_cut_short(folder: Path) -> None:
    """Within a checkpoint its manifest says how long each file is."""
    for place, inside in ((folder, ""), (folder.parent, f"{folder.name}/")):
        manifest = place / MANIFEST
        if not manifest.is_file():
            continue
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        size = files.get(f"{inside}{WEIGHTS}", {}).get("bytes")
        if size is not None and size != (folder / WEIGHTS).stat().st_size:
            raise ModelError(f"The adapter {_name(folder)} is not whole. Choose another checkpoint.")


def _refuse_kind(folder: Path, config: dict[str, Any]) -> None:
    name, kind = _name(folder), config.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"The adapter {name} is of the kind {kind}. Only LoRA adapters can be swapped over a base.")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelError(f"The adapter {name} is for {config['task_type']}, which does not chat.")
    start = config.get("init_lora_weights")
    changes = isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE)
    if config.get("bias", "none") != "none" or config.get("layer_replication") or changes:
        raise ModelError(
            f"The adapter {name} changes its base itself, so it cannot be swapped over one that others use. Merge it "
            "with the tool that made it, and choose the merged model."
        )


def _refuse_base(
    folder: Path, config: dict[str, Any], shapes: dict[str, list[int]], base: Any, found: FoundModel
) -> None:
    named = str(config.get("base_model_name_or_path") or "")
    modules = dict(base.named_modules())
    if (named and not _same(named, found)) or not all(_fits(key, shape, modules) for key, shape in shapes.items()):
        trained = _short(named) or "another model"
        raise ModelError(
            f"The adapter {_name(folder)} was trained over {trained} and does not belong to {found.label}. Choose it "
            "with its own base."
        )


def _same(named: str, found: FoundModel) -> bool:
    """Whether the name in an adapter's files means this base. A folder that was moved keeps its last part."""
    own = {found.wanted, found.source}
    return named in own or _short(named) in {_short(each) for each in own}


def _short(named: str) -> str:
    """A Hugging Face id as it is, of a folder its own name."""
    plain = PurePosixPath(named.replace("\\", "/"))
    return named if len(plain.parts) <= 2 and not plain.is_absolute() else plain.name


def _fits(key: str, shape: list[int], modules: dict[str, Any]) -> bool:
    """Whether a matrix of an adapter finds its layer, with the layer's sizes."""
    name, _, matrix = key.removeprefix("base_model.model.").rpartition(".lora_")
    if not matrix.startswith(("A.", "B.")):
        return True
    layer = modules.get(name)
    if layer is None:
        return False
    sizes = (getattr(layer, "in_features", None), getattr(layer, "out_features", None))
    size = sizes[matrix.startswith("B.")]
    return size is None or shape[0 if matrix.startswith("B.") else 1] == size


def _shapes(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / WEIGHTS, framework="pt") as opened:
        return {key: list(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 (no mapping)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
