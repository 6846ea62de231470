"""Checkpoints that are complete or do not exist: written beside, flushed, hashed, and only then renamed into place."""

import random
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy
import torch
from transformers import Trainer

from core.errors import RunError
from core.model.lora_init import put_weights
from core.runs.manifest import is_valid, named_checkpoints, put_in_place, write_manifest
from core.train.adapter_files import write_adapter
from core.workspace import write_json

PROGRESS = "progress.json"


def save_checkpoint(folder: Path, step: int, trainer: Trainer, keep: int, progress: dict[str, Any]) -> Path:
    """Write the trainer's state after `step` to `folder/<step>` and drop all but the newest `keep`. Returns its folder.

    It holds the adapter, optimizer, schedule, random generators, the gradient scaler of fp16, and `progress`, the state
    of the run. A checkpoint that is there already is left as it is. If writing fails, nothing is left behind.
    """
    final, partial = folder / str(step), folder / f".{step}.partial"
    if not is_valid(final):
        for leftover in folder.glob(".*"):  # of a crash in the middle of a save
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            _write(partial, step, trainer, progress)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        put_in_place(partial, final)
    _rotate(folder, final, keep)
    return final


def _rotate(folder: Path, newest: Path, keep: int) -> None:
    """Drop all but `newest` and the complete ones before it, `keep` in all. No more are hashed than necessary."""
    kept = [newest]
    for path in named_checkpoints(folder):
        if path == newest:
            continue
        if len(kept) < keep and is_valid(path):
            kept.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _write(partial: Path, step: int, trainer: Any, progress: dict[str, Any]) -> None:
    partial.mkdir(parents=True)
    write_adapter(trainer.model, partial / "adapter")
    states = {"optimizer": trainer.optimizer.state_dict(), "scheduler": trainer.lr_scheduler.state_dict()}
    if trainer.accelerator.scaler is not None:
        states["scaler"] = trainer.accelerator.scaler.state_dict()
    for name, state in {**states, "random": random_states()}.items():
        with (partial / f"{name}.pt").open("wb") as handle:
            torch.save(state, handle)
    write_json(partial / PROGRESS, progress)
    write_manifest(partial, step)


def restore_adapter(folder: Path, model: Any) -> None:
    """Give `model` the trained weights in the checkpoint `folder`. Raises RunError where they are not all there."""
    odd = put_weights(model, folder / "adapter")
    if odd is not None:
        raise RunError(f"The checkpoint of step {folder.name} does not fit this model: {odd}.")


def restore_training(folder: Path, trainer: Any, learning_rate: float) -> None:
    """Give the trainer the optimizer, schedule and gradient scaler in the checkpoint `folder`.

    The schedule continues from its step, with `learning_rate` and the number of steps that the trainer has now; if both
    are unchanged, so is the rate.
    """
    optimizer, scheduler = trainer.optimizer.optimizer, trainer.lr_scheduler
    state = load_state(folder / "optimizer.pt")
    if hasattr(optimizer, "page_mng"):  # bitsandbytes'
        optimizer.load_state_dict(state, move_to_device=False)
        _place(optimizer)
    else:
        optimizer.load_state_dict(state)
    scheduler.load_state_dict(load_state(folder / "scheduler.pt"))
    scheduler.base_lrs = [learning_rate] * len(optimizer.param_groups)
    rates = [learning_rate * factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["initial_lr"], group["lr"] = learning_rate, rate
    scheduler._last_lr = rates
    if trainer.accelerator.scaler is not None and (folder / "scaler.pt").exists():
        trainer.accelerator.scaler.load_state_dict(load_state(folder / "scaler.pt"))


def _place(optimizer: Any) -> None:
    """Put states where bitsandbytes would have made them: in paged memory, if the optimizer is paged."""
    for parameter, state in optimizer.state.items():
        for name in ("state1", "state2"):
            if name in state:
                place = optimizer.get_state_buffer(parameter, dtype=state[name].dtype)
                if parameter.device.type == "cuda":
                    torch.cuda.synchronize()  # the new buffer is being filled with zeros
                state[name] = place.copy_(state[name].reshape(place.shape))


def load_state(path: Path) -> Any:
    """Load numbers and tensors, and run no code. Raises RunError where the file holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError) as error:
        raise RunError(
            f"{path.name} of checkpoint {path.parent.name} was not made by Nibble and is not loaded."
        ) from error


def random_states() -> dict[str, Any]:
    """The state of every random generator that training draws from, in plain values and tensors."""
    numpys: Any = numpy.random.get_state(legacy=False)
    inner = {"key": numpys["state"]["key"].tolist(), "pos": int(numpys["state"]["pos"])}
    return {
        "python": random.getstate(),
        "numpy": {**numpys, "state": inner},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set every random generator back to what `random_states` returned."""
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    if states.get("mps") is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
