"""The table of runs as HTML, made so that a glance says which was best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.pieces import date, duration, empty, number, state_badge, text
from core.errors import NibbleError
from core.runs.store import Run, Status, list_runs
from core.workspace import Workspace

HEADINGS = ("Run", "State", "Base model", "Data", "Rank", "Steps", "Evaluation loss", "Time", "Made")


@dataclass(frozen=True)
class Facts:
    """What a row says of a run; read again only when its status changed."""

    status: Status
    model: str
    data: str
    rank: str
    before: float | None
    after: float | None
    seconds: float | None


class Table:
    """Rows are kept while a run's status stays the same: a tick does not read every recipe again."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._facts: dict[str, Facts] = {}

    def html(self, opened: str) -> str:
        """The table, newest first, with the row of the `opened` run marked."""
        runs = list_runs(self.workspace)
        if not runs:
            return empty("No runs yet", "Every training is listed here with what came out of it.")
        facts = {run.id: self._read(run) for run in runs}
        best = _best(facts)
        rows = "".join(_row(run, facts[run.id], run.id == opened, run.id in best) for run in runs)
        head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
        return f'<div class="nb-scroll"><table class="nb-table"><thead><tr>{head}</tr></thead>{rows}</table></div>'

    def _read(self, run: Run) -> Facts:
        status, known = run.status(), self._facts.get(run.id)
        if known is not None and known.status == status:
            return known
        result = run.result()
        model, data, rank = (known.model, known.data, known.rank) if known else _settings(run)
        self._facts[run.id] = Facts(
            status=status,
            model=model,
            data=data,
            rank=rank,
            before=result.get("eval_loss_before"),
            after=result.get("eval_loss"),
            seconds=result.get("seconds"),
        )
        return self._facts[run.id]


def _settings(run: Run) -> tuple[str, str, str]:
    try:
        recipe = run.recipe()
    except NibbleError:
        return "?", "?", "?"
    return Path(recipe.model).name, Path(recipe.data.path).name, str(recipe.lora.rank)


def _best(facts: dict[str, Facts]) -> set[str]:
    """The run with the lowest evaluation loss of each dataset that several runs were trained on."""
    best: dict[str, tuple[float, str]] = {}
    counts: dict[str, int] = {}
    for run_id, fact in facts.items():
        if fact.after is not None:
            counts[fact.data] = counts.get(fact.data, 0) + 1
            best[fact.data] = min(best.get(fact.data, (fact.after, run_id)), (fact.after, run_id))
    return {run_id for data, (_, run_id) in best.items() if counts[data] > 1}


def _row(run: Run, facts: Facts, opened: bool, best: bool) -> str:
    status = facts.status
    steps = f"{number(status.step)} / {number(status.total)}" if status.total else "–"
    loss = "–" if facts.after is None else f"{facts.after:.3f}"
    if facts.after is not None and facts.before is not None:
        loss = f"<small>{facts.before:.3f} →</small> {'<b>' if best else ''}{loss}{'</b> ★' if best else ''}"
    cells = [
        f'<a role="button" tabindex="0">{text(run.name)}</a>',
        state_badge(status.state),
        text(facts.model),
        text(facts.data),
        text(facts.rank),
        steps,
        loss,
        duration(facts.seconds) if facts.seconds else "–",
        date(run.created),
    ]
    title = ' title="The lowest evaluation loss on these data"' if best else ""
    chosen = ' class="nb-open"' if opened else ""
    return f'<tr data-run="{text(run.id)}"{chosen}{title}>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def recipe(run: Run) -> str:
    """The run's exact settings and the log's end, folded apart."""
    try:
        settings = run.recipe().to_yaml()
    except NibbleError as error:
        settings = str(error)
    log = run.log_tail(60) or "Nothing yet."
    return (
        f'<p class="nb-muted">Folder: <code>{text(run.dir)}</code></p>'
        f"<details><summary>Recipe</summary><pre>{text(settings)}</pre></details>"
        f"<details><summary>The log's last lines</summary><pre class='nb-log'>{text(log)}</pre></details>"
        f"{_reasons(run)}"
    )


def _reasons(run: Run) -> str:
    reasons = run.plan().get("reasons") or []
    lines = "".join(
        f"<li><b>{text(reason.get('setting'))}</b> {text(reason.get('value'))}: {text(reason.get('because'))}</li>"
        for reason in reasons
    )
    return f"<details><summary>What was chosen, and why</summary><ul>{lines}</ul></details>" if lines else ""
