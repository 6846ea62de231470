"""The best adapter so far, by its evaluation loss, kept in a folder of its own."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.runs.manifest import BEST, is_valid, put_in_place, write_manifest
from core.train.adapter_files import write_adapter
from core.workspace import move

# Above it a float cannot hold the perplexity.
HIGHEST_LOSS = 700.0


@dataclass
class Best:
    """The step with the lowest evaluation loss, in nats a token, and how many evaluations since brought nothing better.

    A checkpoint holds its fields, so that a resumed run goes on from them.
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

    def summary(self) -> dict[str, Any] | None:
        """As result.json names it; None where nothing was measured."""
        return None if self.step is None else {"step": self.step, "eval_loss": self.eval_loss}


def perplexity(loss: float | None) -> float | None:
    """e to the power of `loss`, in nats a token; None where that is no number."""
    return math.exp(loss) if loss is not None and math.isfinite(loss) and loss < HIGHEST_LOSS else None


def keep_best(run_folder: Path, step: int, model: Any, tokenizer: Any) -> None:
    """Replace the best adapter so far by that of `step`, in PEFT's format with its tokenizer.

    At every moment one of the two is complete, in its place or beside it, where `put_back` finds it.
    """
    put_back(run_folder)
    final, fresh, _ = _places(run_folder)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        write_adapter(model, fresh)
        tokenizer.save_pretrained(fresh)
        write_manifest(fresh, step)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    put_in_place(fresh, final)


def put_back(run_folder: Path) -> None:
    """After a crash between two renames the adapter is beside its place: move it back, the newer one of two."""
    final, fresh, old = _places(run_folder)
    for beside in (fresh, old):
        if not final.exists() and is_valid(beside):
            move(beside, final)


def _places(run_folder: Path) -> tuple[Path, Path, Path]:
    return run_folder / BEST, run_folder / f".{BEST}.partial", run_folder / f".{BEST}.old"
