"""The plan of what stands on the form: asked of the helper in the background, so that no press and no tick waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from app.train import plan_html
from core.data.changes import fingerprint
from core.errors import NibbleError
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


class PlanSession:
    """The last plan, and the next one on its way. `look` returns at once; `html()` is what has come since.

    There is one for all browsers, as there is one form. One question is asked at a time, once nothing changed for a
    moment, and only the latest answer counts; until then the last plan stays, greyed. `turn` counts the looks: a
    browser that drew something at a look draws anew at the next tick.
    """

    def __init__(self, ask: Ask, most_bytes: int) -> None:
        self._ask = ask
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._wanted: tuple[Any, ...] = ()
        self._recipe: dict[str, Any] = {}
        self._asked_at = 0.0
        self._question = 0
        self._working = False
        self._html = plan_html.first()
        self.turn = 0
        self.found: dict[str, Any] | None = None
        self.error = ""
        self.planning = False

    def look(self, recipe: Recipe) -> None:
        """Plan `recipe`, unless that is planned already over data whose lengths are known."""
        wanted = _what_matters(recipe)
        with self._lock:
            self.turn += 1
            settled = self.planning or (self.found is not None and not self.error and not self.found["assumed"])
            if wanted == self._wanted and settled:
                return
            self._wanted, self._recipe = wanted, recipe.model_dump()
            self._question += 1
            self._asked_at = time.monotonic()
            self.planning = True
            self._draw()
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, daemon=True).start()

    def refuse(self, sentence: str) -> None:
        """The form's settings are none that a run could have: say so, and plan nothing."""
        with self._lock:
            self.turn += 1
            self._question += 1
            self._wanted = ()
            self._take(None, sentence)

    def html(self) -> str:
        """The plan as it is now. Two equal texts mean: nothing new."""
        return self._html

    @property
    def needed_bytes(self) -> int | None:
        """What the plan takes at its peak; None where there is no plan of what stands on the form now."""
        return None if self.found is None or self.error else int(self.found["peak_bytes"]["process"])

    def _work(self) -> None:
        """Answer questions until the latest is answered."""
        while True:
            question, recipe = self._settled()
            found, error, unforeseen = None, "", None
            try:
                found = self._ask("plan", recipe=recipe)
            except NibbleError as refusal:
                error = str(refusal)
            except Exception as fault:  # a thread has nobody above it who would tell the person
                error = f"This should not have happened ({type(fault).__name__}: {fault}). Please report it."
                unforeseen = fault
            with self._lock:
                if question == self._question:
                    self._take(found, error)
                if not self.planning:
                    self._working = False
                    break
        if unforeseen is not None:
            raise unforeseen

    def _settled(self) -> tuple[int, dict[str, Any]]:
        """The latest question, once nothing was changed for a moment."""
        while True:
            with self._lock:
                left = self._asked_at + QUIET_SECONDS - time.monotonic()
                if left <= 0:
                    return self._question, self._recipe
            time.sleep(left)

    def _take(self, found: dict[str, Any] | None, error: str) -> None:
        self.found, self.error, self.planning = found or self.found, error, False
        self._draw()

    def _draw(self) -> None:
        if self.error and not self.planning:
            self._html = plan_html.failed(self.error)
        elif self.found is None:
            self._html = plan_html.first()
        else:
            self._html = plan_html.plan(self.found, self._most_bytes, self.planning)


def _what_matters(recipe: Recipe) -> tuple[Any, ...]:
    """What a plan depends on; the dataset's files may be written anew under the same names."""
    return recipe.model_dump_json(exclude=INDIFFERENT), fingerprint(as_path(recipe.data.path))
