"""The table of runs as HTML, made so that a glance says which was best: sorted, filtered, a page at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from app.ui.html import WORDS, date, duration, empty, number, state_badge, text
from core.errors import NibbleError
from core.runs.heartbeat import hanging
from core.runs.index import Row, best_of, index_of
from core.runs.queue import order
from core.runs.store import ACTIVE, Run
from core.sizes import show_size
from core.workspace import Workspace

PAGE_ROWS = 20
MOST_PICKED = 8
# What was looked up so recently serves every browser.
FRESH_SECONDS = 0.3
STATES = [("All states", ""), *((word, state) for state, word in WORDS.items())]
BEST = "Lowest evaluation loss among runs with the same base model and validation rows"


@dataclass(frozen=True)
class TableView:
    """What a person wants to see: which runs, in which order, which page of them, which are picked, how they compare.

    `compared` are those that are laid over each other, `along` what their curves run along: step, seconds or tokens.
    """

    words: str = ""
    state: str = ""
    sort: str = "made"
    down: bool = True
    page: int = 1
    picked: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    along: str = "step"

    def press(self, act: str, value: str) -> TableView:
        """What is wanted after a press in the table: `sort` by a column, turn to a `page`, `pick` a run or drop it."""
        if act == "sort" and value in COLUMNS:
            down = not self.down if value == self.sort else COLUMNS[value].down
            return replace(self, sort=value, down=down, page=1)
        if act == "page" and value.isdecimal():
            return replace(self, page=int(value))
        if act == "pick":
            others = tuple(run_id for run_id in self.picked if run_id != value)
            return replace(self, picked=others if value in self.picked else (*others, value)[-MOST_PICKED:])
        return self


@dataclass(frozen=True)
class TableColumn:
    """A column: its heading, what it is sorted by (None comes last), whether the first press sorts downwards."""

    heading: str
    key: Callable[[Row], Any]
    down: bool = False
    style: str = ""


COLUMNS = {
    "name": TableColumn("Run", lambda row: row.name.casefold(), style="nb-w-name"),
    "state": TableColumn("State", lambda row: list(WORDS).index(row.state), style="nb-w-state"),
    "model": TableColumn("Base model", lambda row: row.model.casefold(), style="nb-w-text"),
    "data": TableColumn("Data", lambda row: row.data.casefold(), style="nb-w-text"),
    "steps": TableColumn("Steps", lambda row: row.step, down=True, style="nb-w-steps nb-right"),
    "loss": TableColumn("Loss", lambda row: row.loss, style="nb-w-loss nb-right"),
    "eval": TableColumn("Evaluation", lambda row: row.after, style="nb-w-eval nb-right"),
    "time": TableColumn("Time", lambda row: row.seconds, down=True, style="nb-w-time nb-right"),
    "memory": TableColumn("Memory", lambda row: row.peak_bytes, down=True, style="nb-w-memory nb-right"),
    "made": TableColumn("Created", lambda row: row.run_id, down=True, style="nb-w-made nb-right"),
}


@dataclass(frozen=True)
class TablePage:
    """One page of the table. `frame` is all but the rows; `rows` by run id, in their order."""

    frame: str
    rows: dict[str, str]
    runs: int

    @property
    def html(self) -> str:
        """The page as a whole."""
        return self.frame.replace(_ROWS, "".join(self.rows.values()))

    @property
    def layout(self) -> str:
        """Two pages of the same layout differ within their rows only."""
        return f"{self.frame} {' '.join(self.rows)}"


_ROWS = "<!-- rows -->"


class RunsTable:
    """The runs of a workspace, as a person asks for them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.index = index_of(workspace)

    def page(self, asked: TableView, opened: str) -> TablePage:
        """The page that is asked for, with the row of the `opened` run marked."""
        rows = self.index.rows(FRESH_SECONDS)
        if not rows:
            return TablePage(empty("No runs yet", "Every run and its results are listed here."), {}, 0)
        found = _sorted(_filtered(rows, asked), asked)
        pages = max(1, -(-len(found) // PAGE_ROWS))
        page = min(max(asked.page, 1), pages)
        shown = found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        best = best_of(rows)
        queue = [run.id for run in order(self.workspace)] if any(row.state == "queued" for row in shown) else []
        html = {row.run_id: self._row(row, asked, row.run_id == opened, row.run_id in best, queue) for row in shown}
        return TablePage(_frame(asked, len(found), len(rows), page, pages), html, len(rows))

    def _row(self, row: Row, asked: TableView, opened: bool, best: bool, queue: list[str]) -> str:
        run = Run(self.workspace.runs / row.run_id)
        picked = "true" if row.run_id in asked.picked else "false"
        name = text(row.name)
        tags = text(" · ".join(row.tags))
        worry = hanging(run, time.monotonic()) if row.state in ACTIVE else None
        hint = text(f"{row.name}\n{row.note}" if row.note else row.name)
        link = f'<button type="button" class="nb-link" title="{hint}">{name}</button>'
        below = f'<small title="{tags}">{tags}</small>' if tags else ""
        if worry:
            below = f'<small class="nb-worry" title="{text(worry)}">{text(worry)}</small>'
        waits = f" {queue.index(row.run_id) + 1} of {len(queue)}" if row.run_id in queue else ""
        cells = {
            "pick": f'<button type="button" role="checkbox" aria-checked="{picked}" data-pick="{text(row.run_id)}" '
            f'aria-label="Compare {name}" title="Select to compare"></button>',
            "name": f"{link}{below}",
            "state": f'<span title="{text(row.message)}">{state_badge(row.state)}</span><small>{waits}</small>',
            "model": f'<span title="{text(row.model)}">{text(row.model)}</span>',
            "data": f'<span title="{text(row.data)}">{text(row.data)}</span>',
            "steps": f"{number(row.step)}<small> of {number(row.total)}</small>" if row.total else "–",
            "loss": "–" if row.loss is None else f"{row.loss:.3f}",
            "eval": _evaluation(row, best),
            "time": duration(row.seconds) if row.seconds else "–",
            "memory": show_size(row.peak_bytes) if row.peak_bytes else "–",
            "made": f"<time>{date(run.created)}</time>",
        }
        styles = {"pick": "nb-w-pick", **{key: column.style for key, column in COLUMNS.items()}}
        body = "".join(f'<td class="{styles[key]}">{cell}</td>' for key, cell in cells.items())
        return f'<tr data-run="{text(row.run_id)}" class="{"nb-open" if opened else ""}">{body}</tr>'


def _evaluation(row: Row, best: bool) -> str:
    if row.after is None:
        return "–"
    before = "" if row.before is None else f"<small>{row.before:.3f} → </small>"
    if not best:
        return f"{before}{row.after:.3f}"
    kept = f"; its best adapter, also kept, has {row.best:.3f}" if row.lowest != row.after else ""
    return (
        f'<span title="{BEST}{kept}">{before}<b>{row.after:.3f}</b> <b class="nb-star" aria-label="best">★</b></span>'
    )


def _filtered(rows: list[Row], asked: TableView) -> list[Row]:
    words = asked.words.casefold().split()
    if asked.state:
        rows = [row for row in rows if row.state == asked.state]
    if not words:
        return rows
    return [row for row in rows if all(word in _searched(row) for word in words)]


def _searched(row: Row) -> str:
    return " ".join((row.name, row.model, row.data, *row.tags, row.run_id)).casefold()


def _sorted(rows: list[Row], asked: TableView) -> list[Row]:
    """In the column's order, what has no value there last; equal ones newest first."""
    if asked.sort == "made":
        return rows if asked.down else rows[::-1]
    key = COLUMNS[asked.sort].key
    known = [row for row in rows if key(row) is not None]
    return sorted(known, key=key, reverse=asked.down) + [row for row in rows if key(row) is None]


def _frame(asked: TableView, found: int, all_runs: int, page: int, pages: int) -> str:
    if not found:
        return empty("No matching runs", f"None of {number(all_runs)} runs match this search and state.")
    headings = "".join(_heading(key, column, asked) for key, column in COLUMNS.items())
    return (
        f'<div class="nb-scroll nb-runs"><table class="nb-table"><thead><tr><th class="nb-w-pick"></th>{headings}'
        f"</tr></thead><tbody>{_ROWS}</tbody></table></div>{_foot(found, all_runs, page, pages)}"
    )


def _heading(key: str, column: TableColumn, asked: TableView) -> str:
    by_it = key == asked.sort
    order_now = ("descending" if asked.down else "ascending") if by_it else "none"
    arrow = ("↓" if asked.down else "↑") if by_it else ""
    return (
        f'<th class="{column.style}" aria-sort="{order_now}"><button type="button" data-sort="{key}">'
        f'{column.heading}<i aria-hidden="true">{arrow}</i></button></th>'
    )


def _foot(found: int, all_runs: int, page: int, pages: int) -> str:
    first, last = (page - 1) * PAGE_ROWS + 1, min(page * PAGE_ROWS, found)
    of_all = "" if found == all_runs else f", of {number(all_runs)} in all"
    runs = "1 run" if found == 1 else f"{number(first)}–{number(last)} of {number(found)} runs"
    turn = ""
    if pages > 1:
        ends = (("‹ Previous", page - 1, page > 1), ("Next ›", page + 1, page < pages))
        before, after = (
            f'<button type="button" data-page="{to}"{"" if there else " disabled"}>{word}</button>'
            for word, to, there in ends
        )
        turn = f"<nav>{before}<span>page {number(page)} of {number(pages)}</span>{after}</nav>"
    star = '<span><b class="nb-star">★</b> lowest evaluation loss among comparable runs</span>'
    return f'<div class="nb-foot"><span>{runs}{of_all}</span>{star}{turn}</div>'


def noted(tags: list[str], note: str) -> str:
    """What a person wrote on a run."""
    marks = "".join(f'<i class="nb-tag">{text(tag)}</i>' for tag in tags)
    marks = f'<div class="nb-marks">{marks}</div>' if marks else ""
    return f'{marks}<div class="nb-noted">{text(note)}</div>' if note else marks


def recipe(run: Run) -> str:
    """The run's exact settings, and what was chosen and why, folded apart."""
    try:
        settings = run.recipe().to_yaml()
    except NibbleError as error:
        settings = str(error)
    return (
        f'<p class="nb-muted">Folder: <code>{text(run.dir)}</code></p>'
        f"<details><summary>Recipe</summary><pre>{text(settings)}</pre></details>{_reasons(run)}"
    )


def log(run: Run) -> str:
    """The last lines of the worker's log."""
    return f"<pre class='nb-log'>{text(run.log_tail(60) or 'Nothing yet.')}</pre>"


def _reasons(run: Run) -> str:
    reasons = run.plan().get("reasons") or []
    lines = "".join(
        f"<li><b>{text(reason.get('setting'))}</b> {text(reason.get('value'))}: {text(reason.get('because'))}</li>"
        for reason in reasons
    )
    return f"<details><summary>Choices and reasons</summary><ul>{lines}</ul></details>" if lines else ""
