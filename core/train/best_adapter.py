"""The best adapter so far: the one with the lowest evaluation loss, kept whole in a folder of its own."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.runs.manifest import BEST, is_valid, put_in_place, write_manifest
from core.workspace import move

# Above it a float cannot hold the perplexity.
HIGHEST_LOSS = 700.0


@dataclass
class Best:
    """The step with the lowest evaluation loss, in nats a token, and how many evaluations since brought nothing better.

    Saved as a dict, so that a resumed run goes on from it.
    """

    step: int | None = None
    eval_loss: float | None = None
    since: int = 0

    def take(self, step: int, loss: float) -> bool:
        """An evaluation after `step` gave `loss`. Returns whether it is the best so far."""
        if math.isfinite(loss) and (self.eval_loss is None or loss < self.eval_loss):
            self.step, self.eval_loss, self.since = step, loss, 0
            return True
        self.since += 1
        return False

    def as_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it; `Best(**values)` reads it back."""
        return asdict(self)

    def told(self) -> dict[str, Any] | None:
        """As result.json names it; None where nothing was measured."""
        return None if self.step is None else {"step": self.step, "eval_loss": self.eval_loss}


def perplexity(loss: float | None) -> float | None:
    """e to the power of `loss` in nats a token: among how many tokens the model wavers. None where there is none."""
    return math.exp(loss) if loss is not None and math.isfinite(loss) and loss < HIGHEST_LOSS else None


def keep_best(run_folder: Path, step: int, model: Any, tokenizer: Any) -> Path:
    """Put the adapter of `step` in the place of the best so far, in PEFT's format with its tokenizer.

    At every moment one of the two is there whole, in its place or beside it; `best_folder` finds it.
    """
    _put_back(run_folder)
    final, fresh, _ = _places(run_folder)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        write_manifest(fresh, step)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    put_in_place(fresh, final)
    return final


def best_folder(run_folder: Path) -> Path | None:
    """Where the best adapter is, after a crash as well; None where there is none."""
    _put_back(run_folder)
    final, _, _ = _places(run_folder)
    return final if is_valid(final) else None


def _put_back(run_folder: Path) -> None:
    """A crash between two renames leaves the adapter beside its place, the newer one first."""
    final, fresh, old = _places(run_folder)
    for beside in (fresh, old):
        if not final.exists() and is_valid(beside):
            move(beside, final)


def _places(run_folder: Path) -> tuple[Path, Path, Path]:
    return run_folder / BEST, run_folder / f".{BEST}.partial", run_folder / f".{BEST}.old"
