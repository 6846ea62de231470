"""The leaderboard as HTML: Elo with its interval drawn, games, Bradley-Terry, and who wins against whom."""

from app.ui.charts import ticks
from app.ui.html import empty, number, text
from core.arena.elo import START, K
from core.arena.leaderboard import Board

WIDE, TALL, EDGE = 184, 22, 14
FEW_GAMES = 10
MOST_IN_MATRIX, MOST_NAMED = 12, 4
_MARK = "<!-- how new it is -->"
HEADINGS = ("", "Model", "Elo", "95 % interval", "Games", "Bradley–Terry")


def counted(count: int, what: str) -> str:
    """A number of things: '1 vote', '1,200 votes'."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def renewed(html: str) -> str:
    """The last board while the next one is being counted."""
    return html.replace(_MARK, '<span class="nb-work"><i class="nb-spin"></i>Counting the new votes…</span>')


def leaderboard(board: Board, labels: dict[str, str], damaged: int, kept: int) -> str:
    """The whole leaderboard. `labels` are the models' names, `damaged` lines of votes count nowhere."""
    if not board.votes:
        new = "Vote on a pair, and the models are ranked here by Elo as in the QLoRA paper, with a confidence interval."
        title, message = ("No votes to count", "No votes of the kinds chosen below.") if kept else ("No votes yet", new)
        return empty(title, message) + _damaged(damaged)
    scale = _Scale(board)
    rows = "".join(_row(place, board, labels, scale) for place in range(len(board.ratings)))
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    return (
        '<section class="nb-card nb-board"><header><div><h3>Leaderboard</h3>'
        f"<small>{counted(board.votes, 'vote')} · start {START:.0f}, K {K:.0f}, the mean of "
        f"{number(board.orderings)} random orderings</small></div>{_MARK}</header>"
        f'<div class="nb-scroll"><table class="nb-table"><thead><tr>{head}</tr></thead>{rows}'
        f'<tr class="nb-elo-axis"><td colspan="3"></td><td>{scale.axis()}</td><td colspan="2"></td></tr>'
        f"</table></div>{_remarks(board, labels)}{_damaged(damaged)}{_matrix(board, labels)}{_explained()}</section>"
    )


class _Scale:
    """From points to places on the small pictures, the same for all rows."""

    def __init__(self, board: Board) -> None:
        low, high = min(each.low for each in board.ratings), max(each.high for each in board.ratings)
        room = max(10.0, (high - low) * 0.05)
        self.low, self.high = low - room, high + room

    def x(self, points: float) -> float:
        return EDGE + (points - self.low) / (self.high - self.low) * (WIDE - 2 * EDGE)

    def interval(self, low: float, middle: float, high: float) -> str:
        """One rating with its interval."""
        title = f"{middle:.0f} points; with other votes of this kind between {low:.0f} and {high:.0f}, 95 times of 100"
        y = TALL / 2
        guides = "".join(
            f'<line class="nb-grid" x1="{self.x(at):.1f}" x2="{self.x(at):.1f}" y1="0" y2="{TALL}"/>'
            for at in self._ticks()
        )
        return (
            f'<svg class="nb-elo" width="{WIDE}" height="{TALL}" viewBox="0 0 {WIDE} {TALL}" role="img" '
            f'aria-label="{title}" data-said="{title}">{guides}'
            f'<rect class="nb-elo-range" x="{self.x(low):.1f}" y="{y - 4}" rx="4" '
            f'width="{max(2.0, self.x(high) - self.x(low)):.1f}" height="8"/>'
            f'<circle class="nb-elo-point" cx="{self.x(middle):.1f}" cy="{y}" r="3.4"/></svg>'
        )

    def axis(self) -> str:
        """The numbers below, with their unit."""
        marks = "".join(
            f'<line class="nb-mark" x1="{self.x(at):.1f}" x2="{self.x(at):.1f}" y1="0" y2="4"/>'
            f'<text class="nb-tick" x="{self.x(at):.1f}" y="17" text-anchor="middle">{at:.0f}</text>'
            for at in self._ticks()
        )
        return (
            f'<svg class="nb-elo" width="{WIDE}" height="36" viewBox="0 0 {WIDE} 36" aria-hidden="true">{marks}'
            f'<text class="nb-axis" x="{WIDE / 2}" y="33" text-anchor="middle">Elo (points)</text></svg>'
        )

    def _ticks(self) -> list[float]:
        return ticks(self.low, self.high, about=3)


def _row(place: int, board: Board, labels: dict[str, str], scale: _Scale) -> str:
    rating = board.ratings[place]
    strength = board.strengths[rating.model]
    beside = "–" if strength.rating is None else f"{strength.rating:.0f}"
    name = labels.get(rating.model, rating.model)
    cells = [
        f"{place + 1}",
        f'<span title="{text(rating.model)}">{text(name)}</span>',
        f"<b>{rating.elo:.0f}</b>",
        scale.interval(rating.low, rating.elo, rating.high),
        number(rating.games),
        beside,
    ]
    return f'<tr data-model="{text(rating.model)}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _remarks(board: Board, labels: dict[str, str]) -> str:
    """What to keep in mind when reading it."""
    lines = []
    few = [each.model for each in board.ratings if each.games < FEW_GAMES]
    if few:
        lines.append(
            f"Fewer than {FEW_GAMES} games: {_names(few, labels)}. Their ratings and intervals are not reliable yet."
        )
    for why in sorted({each.why for each in board.strengths.values() if each.why}):
        without = [model for model, each in board.strengths.items() if each.why == why]
        lines.append(f"No Bradley–Terry number for {_names(without, labels)}: it {why}.")
    return f'<ul class="nb-remarks">{"".join(f"<li>{line}</li>" for line in lines)}</ul>' if lines else ""


def _names(models: list[str], labels: dict[str, str]) -> str:
    named = ", ".join(text(labels.get(model, model)) for model in models[:MOST_NAMED])
    return f"{named} and {len(models) - MOST_NAMED} more" if len(models) > MOST_NAMED else named


def _damaged(count: int) -> str:
    if not count:
        return ""
    return f'<p class="nb-muted">Not counted: {counted(count, "damaged line")} of votes.jsonl.</p>'


def _matrix(board: Board, labels: dict[str, str]) -> str:
    """The share of the points that each row took from each column; the best players only, where there are many."""
    models = [each.model for each in board.ratings[:MOST_IN_MATRIX]]
    head = "".join(
        f'<th title="{text(labels.get(model, model))}">{place}</th>' for place, model in enumerate(models, 1)
    )
    rows = ""
    for place, model in enumerate(models, 1):
        cells = "".join(_met(board, model, other, labels) for other in models)
        rows += f'<tr><th scope="row">{place}. {text(labels.get(model, model))}</th>{cells}</tr>'
    return (
        "<details><summary>Win rates</summary>"
        '<p class="nb-muted">The share of points the row won against the column; a tie counts half a point.</p>'
        f'<div class="nb-scroll"><table class="nb-matrix"><thead><tr><th></th>{head}</tr></thead>{rows}</table></div>'
        "</details>"
    )


def _met(board: Board, model: str, other: str, labels: dict[str, str]) -> str:
    pair = board.pairs.get((model, other))
    if pair is None:
        return '<td class="nb-muted">·</td>' if model == other else '<td class="nb-muted">–</td>'
    message = (
        f"{labels.get(model, model)} against {labels.get(other, other)}: {pair.wins} won, {pair.ties} tied, "
        f"{pair.losses} lost"
    )
    strength = round(abs(pair.rate - 0.5) * 140)
    colour = "good" if pair.rate > 0.5 else "bad"
    mix = f"background: color-mix(in srgb, var(--nb-{colour}) {strength}%, transparent)"
    return f'<td style="{mix}" data-said="{text(message)}">{pair.rate:.0%}<small>{number(pair.games)}</small></td>'


def _explained() -> str:
    return (
        "<details><summary>How ratings are computed</summary><p>Elo follows the QLoRA paper: everybody starts at "
        f"{START:.0f}, a game moves both ratings by at most K = {K:.0f}, and the final ratings are averaged over many "
        "random orderings of the votes. A tie, or both bad, is half a win each. The interval says how far a rating "
        "could move with other votes of this kind: the votes are drawn anew many times. Where two intervals overlap "
        "widely, more votes are needed. Bradley–Terry, on the same scale, is the one set of numbers that makes all "
        "the votes likeliest, whatever their order.</p></details>"
    )
