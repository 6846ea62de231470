"""The plan of what stands on the form: asked of the helper in the background, so that no press and no tick waits."""

import threading
from collections.abc import Callable
from typing import Any

from app.train import plan_html
from app.ui.background_job import BackgroundJob
from core.data.changes import fingerprint
from core.recipe import Recipe
from core.workspace import as_path

Ask = Callable[..., dict[str, Any]]
QUIET_SECONDS = 0.25
# Settings that decide nothing of what a step takes or how long all of them take.
INDIFFERENT: dict[str, Any] = {
    "name": True,
    "checkpoint": True,
    "evaluation": True,
    "lora": {"alpha"},
    "train": {"learning_rate", "schedule", "warmup_ratio", "beta2", "weight_decay", "max_grad_norm"},
}


class PlanSession(BackgroundJob):
    """The last plan, and the next one on its way. `look` returns at once; `html()` is what has come since.

    There is one for all browsers, as there is one form. One plan is made at a time, once nothing changed for a moment,
    and only the latest counts; until then the last one stays, greyed. `turn` counts the looks: a browser that drew
    something at a look draws anew at the next tick.
    """

    def __init__(self, ask: Ask, most_bytes: int) -> None:
        super().__init__()
        self._ask, self._most_bytes = ask, most_bytes
        self._wanted: tuple[Any, ...] = ()
        self._html = plan_html.first()
        self.turn = 0
        self.found: dict[str, Any] | None = None

    def look(self, recipe: Recipe) -> None:
        """Plan `recipe`, unless that is planned already over data whose lengths are known."""
        wanted = _what_matters(recipe)
        with self._lock:
            self.turn += 1
            settled = self.busy or (self.found is not None and not self.error and not self.found["assumed"])
            if wanted == self._wanted and settled:
                return
            self._wanted = wanted
            self.stop()
            self.start(lambda stopping: self._plan(recipe, stopping))
            self._draw(planning=True)

    def refuse(self, sentence: str) -> None:
        """The form's settings are none that a run could have: say so, and plan nothing."""
        with self._lock:
            self.turn += 1
            self._wanted = ()
            self.abandon()
            self.error = sentence
            self._draw()

    def html(self) -> str:
        """The plan as it is now. Two equal texts mean: nothing new."""
        return self._html

    @property
    def needed_bytes(self) -> int | None:
        """What the plan takes at its peak; None where there is no plan of what stands on the form now."""
        return None if self.found is None or self.error else int(self.found["peak_bytes"]["process"])

    def ended(self) -> None:
        """The latest plan is made, or cannot be."""
        self._draw()

    def _plan(self, recipe: Recipe, stopping: threading.Event) -> None:
        if stopping.wait(QUIET_SECONDS):  # something was changed meanwhile
            return
        found = self._ask("plan", recipe=recipe.model_dump())
        with self._lock:
            if not stopping.is_set():
                self.found = found

    def _draw(self, planning: bool = False) -> None:
        if self.error:
            self._html = plan_html.failed(self.error)
        elif self.found is None:
            self._html = plan_html.first()
        else:
            self._html = plan_html.plan(self.found, self._most_bytes, planning)


def _what_matters(recipe: Recipe) -> tuple[Any, ...]:
    """What a plan depends on; the dataset's files may be written anew under the same names."""
    return recipe.model_dump_json(exclude=INDIFFERENT), fingerprint(as_path(recipe.data.path))
