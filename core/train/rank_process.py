"""One of several processes that train together: its place is in the environment.

python -m core.train.rank_process RUN_FOLDER

The worker starts the others of its machine so, and accelerate's launcher all of several machines. Rank 0 is the worker;
what the others have to say stays in folders of their own.
"""

import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.basemodel.code_consent import trust_only
from core.errors import NibbleError
from core.recipe import Recipe
from core.runs.store import Run
from core.system.hardware import device
from core.text.library_errors import telling_line
from core.train.ranks import claim_own_card, end_with_parent, folder_of
from core.workspace import Workspace


@dataclass(frozen=True)
class RankRun(Run):
    """A run as one of its other processes sees it: what it reads is the run's, what it writes is apart, in `dir`."""

    of: Run

    def recipe(self) -> Recipe:
        """The run's."""
        return self.of.recipe()

    @property
    def start(self) -> Path:
        """The run's."""
        return self.of.start

    def dataset_file(self) -> Path:
        """The run's."""
        return self.of.dataset_file()

    def base_revision(self) -> str | None:
        """The run's."""
        return self.of.base_revision()


def main(folder: str) -> int:
    """Take the place that the environment names. Returns the exit status; the last line printed says why it failed."""
    claim_own_card()
    if os.environ["RANK"] == "0":
        from core.train.worker import main as work

        return work(folder)
    end_with_parent()
    run = Run(Path(folder))
    trust_only(Workspace(run.workspace))
    try:
        follow(run)
    except NibbleError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # the worker reads the last line
        traceback.print_exc()
        print(telling_line(error, kind=True), file=sys.stderr)
        return 1
    return 0


def follow(run: Run) -> None:
    """Train along, deciding nothing: the same model and rows as rank 0, and this process' share of each step."""
    from transformers import TrainerCallback

    from core.memory.budget import read_budget
    from core.train.base_model import have_base
    from core.train.evaluation import Evaluator
    from core.train.loop import make_trainer, prepare
    from core.train.parallel import join

    class Aside(TrainerCallback):
        trainer: Any

        def report_change(self, before: Any, now: Any, shortage: Any) -> None:
            own.event("warning", f"Memory ran out; now {now}.")

        def warn(self, message: str) -> None:
            own.event("warning", message)

        def evaluate_along(self, step: int) -> None:
            evaluator.evaluate(self.trainer, step)

    recipe, chosen = run.recipe(), device()
    ranks = join(chosen.kind, recipe.train.sharded)
    own = RankRun(folder_of(run, ranks.rank), run)
    ranks.meet()  # rank 0 has downloaded what there was to download
    resumed = ranks.from_first(None)
    found = have_base(own, recipe, held=False)
    prepared = prepare(own, recipe, found, chosen, read_budget(recipe, found, chosen, ranks.count), ranks, resumed)
    evaluator = Evaluator(own, recipe, prepared.rows, prepared.choices.packed, prepared.choices.tokens_at_once)
    aside = Aside()
    aside.trainer = make_trainer(own, prepared, aside, ranks)
    aside.trainer.train()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
