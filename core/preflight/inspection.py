"""The inspection of a dataset: a check that runs in a thread, and what it can answer meanwhile."""

from __future__ import annotations

import copy
import threading
import traceback
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.basemodel.find import find_model
from core.data.cache import PreparedCache
from core.data.changes import fingerprint
from core.data.check import Check, Report
from core.data.check.columns import names_within
from core.data.check.raw import RawRows
from core.data.check.reading import DECIDE
from core.data.dataset import Loaded
from core.data.preview import show_conversation, show_row
from core.data.read import encodings_offered
from core.data.rendering.render import Renderer
from core.data.rendering.template import Unrenderable
from core.errors import DataError, NibbleError
from core.preflight.training import training_for
from core.recipe import Recipe
from core.text.library_errors import telling_line
from core.workspace import Workspace

DROPPED_LISTED = 1000
NOT_READ_YET = "The data is still being read. Try again in a moment."
NOT_COUNTED_YET = "The rows are still being checked. Try again when that is done."

TokenizerFor = Callable[[str], Any]


class _Cancelled(Exception):
    """Something else is looked at now."""


@dataclass(frozen=True)
class _Parts:
    """What an inspection works with once file and model are found. `read_as` says what was read, and how."""

    read_as: tuple[Any, ...]
    raw: RawRows
    check: Check
    renderer: Renderer  # a separate one for single rows, so that they need not wait for the check


class Inspection:
    """`work` in a thread of its own; everything else may be called from another one."""

    def __init__(
        self, workspace: Workspace, recipe: Recipe, tokenizer_for: TokenizerFor, before: Inspection | None = None
    ) -> None:
        self.recipe = recipe
        self.report: Report | None = None
        self._workspace, self._tokenizer_for, self._before = workspace, tokenizer_for, before
        self._cancelled = threading.Event()
        self._state: dict[str, Any] = {"stage": "starting", "progress": 0.0, "error": None}
        self._state["name"] = Path(recipe.data.path).name
        self._parts: _Parts | None = None

    def state(self) -> dict[str, Any]:
        """What is known by now."""
        return self._state

    def cancel(self) -> None:
        """End the work at its next batch."""
        self._cancelled.set()

    def work(self) -> None:
        """Check the dataset, telling in the state how it goes. Raises nothing."""
        try:
            self._tell(stage="reading")
            self._parts = self._prepare()
            for report in self._parts.check.reports():
                self.report = report
                self._tell(**report.as_json(DROPPED_LISTED))
        except _Cancelled:
            return
        except NibbleError as error:
            self._tell(stage="failed", error=str(error))
        except Exception as error:  # a thread has nobody above it who would tell the person; the log gets the rest
            traceback.print_exc()
            self._tell(stage="failed", error=f"{telling_line(error, kind=True)}. Please report it.")
        finally:
            self._before = None

    def row(self, number: int) -> dict[str, Any]:
        """As `DatasetSession.row`. Raises DataError where nothing can be shown yet."""
        parts, report = self._parts, self.report
        if parts is None:
            raise DataError(self._state["error"] or NOT_READ_YET)
        if report is None or parts.check.read is None:
            return self._row_of_unread(parts, max(1, number))
        number = min(number, report.rows) if number > 0 else parts.check.read.first_usable
        codes = [each.code for each in parts.check.findings if _has(parts.check.rows_of(each.code), number)]
        found = {"row": number, "rows": report.rows, "raw": parts.raw.show(number), "findings": codes}
        conversation = parts.check.read.conversation(number)
        if conversation is None:
            dropped = parts.check.dropped
            return {**found, "reason": dropped[bisect_left(dropped, number, key=lambda each: each.row)].reason}
        try:
            return {**found, **show_row(parts.renderer, conversation, self.recipe.data.max_length)}
        except Unrenderable as error:
            return {**found, **show_conversation(conversation), "reason": str(error)}

    def rows_of(self, code: str) -> Sequence[int]:
        """Every row that a finding stands in, rising."""
        return self._parts.check.rows_of(code) if self._parts else []

    def train_units(self) -> list[tuple[int, int]] | None:
        """(tokens, of them trained on) of each unit that would be trained on; None before that is counted."""
        return self._parts.check.train_units if self._parts and self._state["stage"] == "done" else None

    def conversations(self) -> tuple[Loaded, set[int]]:
        """What was read, and the rows of it that turned out unusable. Raises DataError before that is known."""
        if self._parts is None or self._parts.check.read is None or self._state["stage"] != "done":
            raise DataError(self._state["error"] or NOT_COUNTED_YET)
        return self._parts.check.read.loaded, {each.row for each in self._parts.check.dropped}

    def _prepare(self) -> _Parts:
        """Find file and model. Raises NibbleError."""
        from core.data.locate import locate

        recipe, workspace = self.recipe, self._workspace
        path = locate(recipe.data, workspace)
        read_as = (recipe.model, str(path), fingerprint(path), recipe.data.model_dump(include=DECIDE))
        offered = encodings_offered(path)  # none for Unicode; else the likeliest first
        shown = [{"encoding": each.name, "words": list(each.words)} for each in offered.all] if offered else []
        self._tell(encodings=shown)
        raw = RawRows(path, recipe.data)
        self._tell(**names_within(raw.first()))
        tokenizer = self._tokenizer_for(recipe.model)
        training = training_for(recipe, workspace, find_model(recipe.model))
        before = self._before._parts if self._before is not None else None
        read = before.check.read if before is not None and before.read_as == read_as else None
        cache = PreparedCache.of(workspace.path)
        check = Check(path, recipe.data, tokenizer, training, progress=self._progress, read=read, cache=cache)
        return _Parts(read_as, raw, check, Renderer(copy.deepcopy(tokenizer), recipe.data))

    def _progress(self, stage: str, share: float) -> None:
        if self._cancelled.is_set():
            raise _Cancelled
        self._tell(stage=stage, progress=share)

    def _tell(self, **news: Any) -> None:
        """Update the state by a new object: whoever holds the old one keeps it unchanged."""
        self._state = {**self._state, **news}

    def _row_of_unread(self, parts: _Parts, number: int) -> dict[str, Any]:
        """A row of a file that cannot be used, or is not read yet: as it stands there."""
        reason = self._state["error"] or NOT_READ_YET
        return {"row": number, "rows": number, "raw": parts.raw.show(number), "findings": [], "reason": reason}


def _has(rows: Sequence[int], number: int) -> bool:
    place = bisect_left(rows, number)
    return place < len(rows) and rows[place] == number
