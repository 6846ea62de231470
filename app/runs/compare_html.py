"""Several runs laid over each other: their loss curves, the settings that differ and nothing else, their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.run_view.series import Curves
from app.ui.charts import Axes, padded, path, places, svg
from app.ui.form import flat, on_screen
from app.ui.html import duration, number, state_badge, text
from app.ui.series import Point, Series
from core.errors import NibbleError
from core.runs.index import Row, best_of
from core.runs.store import Run
from core.sizes import show_size

WIDTH, HEIGHT = 960, 340
ALONG = {
    "step": ("step", "number"),
    "seconds": ("training time", "time"),
    "tokens": ("trained tokens", "tokens"),
}
# Marks of the evaluations, so that colour is not needed to tell runs apart: drawn around (0, 0).
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
    "M-4 -4H4V4H-4Z",
    "M0 -5.2L5 4H-5Z",
    "M0 -5.5L5 0L0 5.5L-5 0Z",
)


@dataclass(frozen=True)
class Compared:
    """One of the runs: what the list says of it, and its curves."""

    run: Run
    row: Row
    curves: Curves


def compare(runs: Sequence[Compared], along: str) -> str:
    """The runs side by side. `along` is what the curves run along: step, seconds or tokens."""
    return f"{_chart(runs, along)}{_results(runs)}{_settings(runs)}"


def _chart(runs: Sequence[Compared], along: str) -> str:
    smooth = [_along(each, each.curves.metrics.smooth, along) for each in runs]
    measured = [_along(each, each.curves.metrics.evaluation, along) for each in runs]
    points = [point for line in [*smooth, *measured] for point in line]
    keys = "".join(_key(place, each.row.name) for place, each in enumerate(runs))
    head = (
        '<figcaption><b>Loss</b><span class="nb-muted">smoothed training loss as lines, evaluation loss as marks</span>'
        f'</figcaption><div class="nb-keys nb-runs-keys">{keys}</div>'
    )
    if not points:
        return f'<figure class="nb-chart">{head}<p class="nb-muted">None of these runs has a loss yet.</p></figure>'
    heights = padded(min(y for _, y in points), max(y for _, y in points))
    title, kind = ALONG[along]
    end = max(1.0, max(x for x, _ in points))
    axes = Axes(title, "loss (nats per token)", (0.0, end), heights, kind, width=WIDTH, height=HEIGHT)
    drawn = [_line(place, each.row.name, smooth[place], axes) for place, each in enumerate(runs)]
    drawn += [_marks(place, each.row.name, measured[place], axes) for place, each in enumerate(runs)]
    return f'<figure class="nb-chart nb-wide-chart">{head}{svg("Loss of several runs", axes, drawn)}</figure>'


def _along(each: Compared, series: Series, along: str) -> list[Point]:
    """The points of `series`, which run along the steps, along something else."""
    points = series.all()
    if along == "step" or not points:
        return points
    ruler: Series = getattr(each.curves.metrics, along)
    if not ruler.points:
        return []
    passed = ruler.at_each([x for x, _ in points])
    return [(0.0 if x <= 0 else there, y) for (x, y), there in zip(points, passed, strict=True)]


def _key(place: int, name: str) -> str:
    mark = f'<path class="nb-mark-{place}" transform="translate(17 7)" d="{MARKS[place % len(MARKS)]}"/>'
    line = f'<path class="nb-line nb-run-{place}" d="M1 7H33"/>'
    return f'<span class="nb-key" title="{text(name)}"><svg viewBox="0 0 34 14">{line}{mark}</svg>{text(name)}</span>'


def _line(place: int, name: str, points: list[Point], axes: Axes) -> str:
    if not points:
        return ""
    return f'<path class="nb-line nb-run-{place}" data-name="{text(name)}" d="{path(points, axes)}"/>'


def _marks(place: int, name: str, points: list[Point], axes: Axes) -> str:
    """The evaluations; an unseen line through them is what the pointer finds."""
    if not points:
        return ""
    shape = MARKS[place % len(MARKS)]
    marks = "".join(
        f'<path class="nb-mark-{place}" transform="translate({x:.1f} {y:.1f})" d="{shape}"/>'
        for x, y in places(points, axes)
    )
    return f'<path class="nb-unseen" data-name="{text(name)}, evaluation" d="{path(points, axes)}"/>{marks}'


def _results(runs: Sequence[Compared]) -> str:
    best = best_of([each.row for each in runs])
    results = [each.run.result() for each in runs]
    rows = [
        ("State", [state_badge(each.row.state) for each in runs]),
        ("Steps", [f"{number(each.row.step)} of {number(each.row.total)}" for each in runs]),
        ("Evaluation loss", [_evaluation(each.row, each.row.run_id in best) for each in runs]),
        ("Best evaluation loss", [_loss(each.row.lowest) for each in runs]),
        ("Training loss", [_loss(each.row.loss) for each in runs]),
        ("Time", [duration(each.row.seconds) if each.row.seconds else "–" for each in runs]),
        ("Speed", [_count(each.row.tokens_per_second, " tokens/s") for each in runs]),
        ("Trained on", [_count(result.get("tokens"), " tokens") for result in results]),
        ("Memory predicted", [_size(each.row.predicted_bytes) for each in runs]),
        ("Memory used", [_size(each.row.peak_bytes) for each in runs]),
    ]
    alike = len({each.row.measured_on for each in runs if each.row.after is not None}) <= 1
    remark = (
        "These runs were evaluated on different rows or base models, so their evaluation losses are not comparable."
    )
    below = "" if alike else f'<p class="nb-muted">{remark}</p>'
    return f"<h4>Results</h4>{_table(runs, rows)}{below}"


def _evaluation(row: Row, best: bool) -> str:
    if row.after is None:
        return "–"
    before = "" if row.before is None else f"<small>{row.before:.3f} → </small>"
    return f"{before}<b>{row.after:.3f}</b>{' <b class=nb-star>★</b>' if best else ''}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _count(value: Any, unit: str) -> str:
    return f"{number(value)}{unit}" if isinstance(value, (int, float)) and value else "–"


def _size(value: int | None) -> str:
    return show_size(value) if value else "–"


def _settings(runs: Sequence[Compared]) -> str:
    found = [_settings_of(each.run) for each in runs]
    keys = list(dict.fromkeys(key for settings in found for key in settings))
    rows = []
    for key in keys:
        values = [settings.get(key) for settings in found]
        if any(value != values[0] for value in values):
            shown = [on_screen(key, value) for value in values]
            rows.append((shown[0][0], [text(value) for _, value in shown]))
    if not rows:
        return '<h4>Settings that differ</h4><p class="nb-muted">None: these runs have the same settings and data.</p>'
    return f"<h4>Settings that differ</h4>{_table(runs, rows)}"


def _settings_of(run: Run) -> dict[str, Any]:
    """By dotted key, with the dataset's content and what the plan chose; a name is no setting."""
    try:
        settings = flat(run.recipe())
        content = str(run.dataset().get("sha256", ""))[:12]
    except NibbleError:
        return {"Recipe": "cannot be read"}
    chosen = run.plan().get("chosen")
    items = chosen.items() if isinstance(chosen, dict) else ()
    plan = {f"Plan: {key.replace('_', ' ')}": value for key, value in items}
    return {key: value for key, value in settings.items() if key != "name"} | {"Dataset content": content} | plan


def _table(runs: Sequence[Compared], rows: list[tuple[str, list[str]]]) -> str:
    """`rows` hold HTML; their names are plain text."""
    names = "".join(
        f'<th title="{text(each.row.name)}"><i class="nb-swatch nb-swatch-{place}"></i>{text(each.row.name)}</th>'
        for place, each in enumerate(runs)
    )
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, cells in rows
    )
    return (
        '<div class="nb-scroll nb-compared"><table class="nb-table"><thead><tr><th></th>'
        f"{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )
