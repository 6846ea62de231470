"""The dataset that a person looks at: read and checked in the background, any of its rows shown at once.

It lives in the helper process and looks at one dataset at a time: another that is opened takes its place.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.changes import fingerprint
from core.errors import NibbleError
from core.preflight.inspection import NOT_READ_YET, Inspection, TokenizerFor
from core.preflight.save import save_cleaned, save_report
from core.recipe import Recipe, make_recipe
from core.workspace import Workspace, as_path

State = dict[str, Any]
ROWS_AT_ONCE = 1000
NOTHING: State = {"stage": "idle", "progress": 0.0, "error": None}


class DatasetSession:
    """`answer` takes what the Data tab asks. `tokenizer_for` gives the tokenizer of a model as a recipe names it."""

    def __init__(self, workspace: Workspace, tokenizer_for: TokenizerFor) -> None:
        self._workspace, self._tokenizer_for = workspace, tokenizer_for
        self._inspection: Inspection | None = None
        self._inspected: tuple[Any, ...] = ()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what `request["do"]` says: open, state, row, rows_of, save_report, save_cleaned. Raises NibbleError."""
        does: dict[str, Callable[[], dict[str, Any]]] = {
            "open": lambda: self.open(request["recipe"]),
            "state": self.state,
            "row": lambda: self.row(int(request["number"])),
            "rows_of": lambda: self.rows_of(str(request["code"]), int(request.get("start", 0))),
            "save_report": lambda: self.save_report(Path(request["path"])),
            "save_cleaned": lambda: self.save_cleaned(Path(request["path"]), bool(request.get("without_copies"))),
        }
        if request.get("do") not in does:
            raise NibbleError(f"There is no dataset command {request.get('do')!r}.")
        return does[request["do"]]()

    def open(self, recipe: dict[str, Any]) -> State:
        """Begin to look at a recipe's dataset, as its model will see it; what was looked at before is given up.

        One that is looked at already goes on instead. Returns the state at once. Raises RecipeError.
        """
        wanted = make_recipe(recipe)
        before, same = self._inspection, _what_matters(wanted)
        if before is not None and same == self._inspected and before.state()["stage"] != "failed":
            return self.state()
        self.close()
        self._inspection, self._inspected = Inspection(self._workspace, wanted, self._tokenizer_for, before), same
        threading.Thread(target=self._inspection.work, name="inspection", daemon=True).start()
        return self.state()

    def close(self) -> None:
        """Give up what is looked at."""
        if self._inspection is not None:
            self._inspection.cancel()
        self._inspection = None

    def state(self) -> State:
        """The newest report, with `stage` (idle, starting, reading, tokens, done, failed), `progress` and `error`.

        Before the first report the report's other fields are missing. `columns`, `turn_columns` and `speakers` are
        what a mapping by hand can name, `mapping` is one to begin with; `encodings` are those that it may be in
        where it is in no Unicode, each with `words` as they would read. They come first, also for a file that cannot
        be used as it is.
        """
        return dict(NOTHING) if self._inspection is None else self._inspection.state()

    def row(self, number: int) -> dict[str, Any]:
        """Row `number`, or the nearest there is: as chat, as tokens, as it stands in the file, with its findings.

        0 is the first row that can be used.

        `{"row", "rows", "raw", "findings"}`, and for one that can be used `{"messages", "tools", "text", "tokens",
        "length", "trained", "truncated_here"}`; for one that cannot, `reason`.
        """
        return self._opened().row(number)

    def train_units(self) -> list[tuple[int, int]] | None:
        """(tokens, of them trained on) of each conversation that would be trained on; None before that is counted."""
        return self._inspection.train_units() if self._inspection is not None else None

    def rows_of(self, code: str, start: int = 0) -> dict[str, Any]:
        """Of the rows that a finding stands in, 1,000 from the `start`th on: `{"code", "count", "rows"}`."""
        rows = self._opened().rows_of(code)
        return {"code": code, "count": len(rows), "rows": list(rows[start : start + ROWS_AT_ONCE])}

    def save_report(self, path: Path) -> dict[str, Any]:
        """Write the report to `path`: as a page where it ends in .md, else as JSON. Returns `{"path"}`."""
        report = self._opened().report
        if report is None:
            raise NibbleError(NOT_READ_YET)
        save_report(report, path)
        return {"path": str(path)}

    def save_cleaned(self, path: Path, without_copies: bool = False) -> dict[str, Any]:
        """Write the usable rows to `path` as `messages` jsonl, plain text as `text`. Returns `{"path", "rows"}`.

        Exact copies stay in it unless `without_copies`.
        """
        loaded, left_out = self._opened().conversations()
        return {"path": str(path), "rows": save_cleaned(loaded, left_out, path, without_copies)}

    def _opened(self) -> Inspection:
        if self._inspection is None:
            raise NibbleError("No dataset is open. Choose one.")
        return self._inspection


def _what_matters(recipe: Recipe) -> tuple[Any, ...]:
    """What a report depends on, the dataset's files with it."""
    files, rules = fingerprint(as_path(recipe.data.path)), recipe.train
    return (recipe.model, recipe.data.model_dump(), files, rules.seed, rules.effective_batch, rules.micro_batch)
