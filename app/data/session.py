"""The dataset being looked at: asked of the helper in the background, so that no press and no tick waits for it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.data import html as data_html
from app.data import row_html
from app.ui.background_job import BackgroundJob
from core.data.changes import fingerprint
from core.errors import NibbleError
from core.recipe import Recipe
from core.workspace import as_path

Report = dict[str, Any]
Ask = Callable[..., dict[str, Any]]
LOOKS_EVERY = 0.4  # seconds
NOTHING: Report = {"stage": "idle", "progress": 0.0}
# In the place of a row's number, until it is known which row that is.
FIRST_USABLE = 0


class DataSession(BackgroundJob):
    """What the Data tab knows. `look` returns at once; `report`, `shown` and `parts()` are what has come since.

    There is one for all browsers, as there is one form: the last one that looks decides. `turn` counts what was
    looked at. While the same dataset is looked at anew, its last report stays and says that it is being renewed.
    """

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask
        self._opening = threading.Lock()
        self._wanted: tuple[Any, ...] = ()
        self._drawn = -1
        self._parts: dict[str, str] = {}
        self._more: dict[str, list[int]] = {}
        self.report: Report = NOTHING
        self.shown: dict[str, Any] | None = None
        self.number = FIRST_USABLE
        self.turn = 0
        self.awaited = -1
        self._recipe: dict[str, Any] = {}
        self._beside = self._asking_beside = 0

    def look(self, recipe: Recipe) -> None:
        """Look at the recipe's dataset as its model will see it, unless that is looked at already."""
        wanted = _what_matters(recipe)
        with self._lock:
            if wanted == self._wanted and self.report["stage"] != "failed":
                return
            known = self.report if wanted[:1] == self._wanted[:1] and "usable" in self.report else None
            if known is None:
                self.number, self.shown = FIRST_USABLE, None
            self._wanted, self._recipe = wanted, recipe.model_dump()
            begun = {**known, "max_length": recipe.data.max_length} if known else {"name": Path(recipe.data.path).name}
            self._begin({**begun, "stage": "starting", "progress": 0.0})

    def await_report(self, recipe: Recipe) -> None:
        """Look at it, and let the Train tab know when that is done: `awaited` is then the `turn`."""
        self.look(recipe)
        self.awaited = self.turn

    def forget(self) -> None:
        """Nothing is chosen."""
        with self._lock:
            self.stop()
            self._wanted, self.shown = (), None
            self._next_turn(NOTHING)

    def show_row(self, number: int) -> dict[str, Any]:
        """Show row `number`, or the nearest there is. Raises NibbleError."""
        self._make_sure()
        return self._fetch(max(1, number))

    def _fetch(self, number: int) -> dict[str, Any]:
        turn = self.turn
        found = self._ask("dataset", do="row", number=number)
        with self._lock:
            if turn == self.turn:
                self.number, self.shown = int(found["row"]), found
                self.version += 1
        return found

    def list_rows(self, code: str) -> None:
        """Fetch more of the rows that a finding stands in. Raises NibbleError."""
        self._make_sure()
        known = self._more.get(code, [])
        found = self._ask("dataset", do="rows_of", code=code, start=len(known))
        with self._lock:
            self._more = {**self._more, code: [*known, *found["rows"]]}
            self.version += 1

    def save(self, what: str, path: Path) -> None:
        """Write the report or the cleaned data to `path`. `what`: save_report, save_cleaned. Raises NibbleError."""
        self._make_sure()
        self._ask("dataset", do=what, path=str(path))

    def beside(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Ask the helper what may have it open another dataset: `preview`, `check`, `plan`. Raises NibbleError."""
        with self._lock:
            self._beside, self._asking_beside = self._beside + 1, self._asking_beside + 1
        try:
            return self._ask(op, **arguments)
        finally:
            with self._lock:
                self._asking_beside -= 1

    def parts(self) -> dict[str, str]:
        """The tab's HTML by part. Two equal texts mean: nothing new."""
        with self._lock:
            if self._drawn != self.version:
                self._drawn = self.version
                self._parts = data_html.parts(self.report, self._more)
                self._parts |= {"row": row_html.row(self.shown), "mapped": row_html.mapped(self.shown)}
            return dict(self._parts)

    def _make_sure(self) -> None:
        """Look anew where the helper rested since, or was asked by the Train tab about something else."""
        if self.report["stage"] != "done":
            return
        report = self._open(self.turn, self._recipe)
        if report is not None and report["stage"] in data_html.AT_WORK:
            with self._lock:
                self._begin({**self.report, "stage": "starting", "progress": 0.0})

    def _open(self, turn: int, recipe: dict[str, Any]) -> Report | None:
        """Have the helper open the recipe's dataset; None where another is looked at since, which it must not cover."""
        with self._opening:
            return self._ask("dataset", do="open", recipe=recipe) if turn == self.turn else None

    def ended(self) -> None:
        """All is known, or the dataset cannot be looked at."""
        if self.error:
            self._set({**NOTHING, "stage": "failed", "error": self.error})

    def _begin(self, report: Report) -> None:
        """Begin another turn, with what is known already, and follow the helper through it."""
        self.stop()
        self._next_turn(report)
        turn, recipe = self.turn, self._recipe
        self.start(lambda stopping: self._follow(turn, recipe, stopping))

    def _next_turn(self, report: Report) -> None:
        self.turn += 1
        self._more = {}
        self._set(report)

    def _set(self, report: Report) -> None:
        self.report = report
        self.version += 1

    def _follow(self, turn: int, recipe: dict[str, Any], stopping: threading.Event) -> None:
        """Ask until it is done, or until something else is looked at."""
        showing, opened = False, -1
        while not stopping.is_set():
            before = self._beside
            mine = opened == before
            report = self._ask("dataset", do="state") if mine else self._open(turn, recipe)
            if report is None:
                return
            if before == self._beside and not self._asking_beside:
                opened = before
                if not self._take(turn, report):
                    return
                ended = report["stage"] not in data_html.AT_WORK
                if ended or (report["stage"] == "tokens" and not showing):
                    showing = self._show_again()
                if ended:
                    return
            stopping.wait(LOOKS_EVERY)

    def _show_again(self) -> bool:
        """Show the same row as it is now. Whether there is one: not before the rows are read, nor in a broken file."""
        try:
            self._fetch(self.number)
        except NibbleError:
            with self._lock:
                self.shown = None
                self.version += 1
            return False
        return True

    def _take(self, turn: int, report: Report) -> bool:
        """Whether `report` is on what is looked at now; it is shown then."""
        with self._lock:
            if turn != self.turn:
                return False
            if report["stage"] in data_html.AT_WORK:
                report = _with_known(report, self.report)
            if report != self.report:
                self._set(report)
            return True


def _with_known(report: Report, known: Report) -> Report:
    """`report` with what is not known anew taken from the last report on the same dataset."""
    missing = {key: value for key, value in known.items() if report.get(key) is None and key != "error"}
    return {**report, **missing, "renewed": bool(missing.keys() & {"usable", "tokens"})}


def _what_matters(recipe: Recipe) -> tuple[Any, ...]:
    """What the report depends on, the dataset first: its files may be written anew under the same names."""
    files, train = fingerprint(as_path(recipe.data.path)), recipe.train
    return (
        (recipe.data.path, files, recipe.data.split, recipe.data.config),
        recipe.model,
        recipe.data.model_dump_json(),
        (train.seed, train.effective_batch, train.micro_batch),
    )
