"""The report as a page of Markdown, to keep or to send; what comes from the data cannot become markup."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

_ROWS_NAMED = 20
_REASONS_NAMED = 50
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def as_markdown(report: dict[str, Any]) -> str:
    """The page for a report's JSON."""
    return "\n".join(_page(report)) + "\n"


def _page(report: dict[str, Any]) -> Iterator[str]:
    yield f"# {_safe(report['name'])}"
    yield ""
    yield f"- Read as **{_safe(report['format'])}**: {_safe(report['evidence'])}."
    yield f"- {report['rows']:,} rows: {report['usable']:,} usable, {report['rows'] - report['usable']:,} dropped."
    splits = report.get("splits")  # a report of before that was counted has none
    if splits:
        yield (
            f"- Splits that the data names: {splits['train']:,} rows to train on, {splits['held_out']:,} held out, "
            f"{splits['left_alone']:,} left alone."
        )
    yield f"- Template: {_safe(report['template'])}. Trained on: {_safe(report['train_on'].replace('_', ' '))}."
    if report["tokens"] is not None:
        yield from _figures(report)
    yield ""
    yield "## Findings"
    yield ""
    yield from _findings(report["warnings"])
    if report["dropped"]:
        yield ""
        yield "## Dropped rows"
        yield ""
        yield from _dropped(report["dropped"])


def _figures(report: dict[str, Any]) -> Iterator[str]:
    tokens, split = report["tokens"], report["split"]
    guessed = "" if tokens["exact"] else f" Estimated from a sample of {tokens['sample']:,} rows."
    yield f"- {tokens['total']:,} tokens, {tokens['trained']:,} of them trained on.{guessed}"
    yield (
        f"- A row in tokens: half have up to {tokens['p50']:,}, 95 % up to {tokens['p95']:,}, the longest "
        f"{tokens['max']:,}. The limit is {report['max_length']:,}; {report['truncated']:,} rows are cut."
    )
    for each in report["suggestions"]:
        yield f"- A limit of {each['max_length']:,} is {_safe(each['because'])}."
    yield f"- Padding: {report['padding']['packed']:.1%} packed, {report['padding']['padded']:.1%} unpacked."
    yield f"- Split: {split['train']:,} to train on, {split['held_out']:,} held out for evaluation."
    seconds = report["seconds_per_epoch"]
    time = f"about {seconds:,.0f} seconds, {report['seconds_basis']}" if seconds else report["seconds_basis"]
    yield f"- An epoch: {report['steps_per_epoch']:,} steps; {_safe(time)}."


def _findings(warnings: list[dict[str, Any]]) -> Iterator[str]:
    if not warnings:
        yield "Nothing was found."
    for each in warnings:
        yield f"- **{each['severity']}** `{each['code']}`: {_safe(each['message'])} {_safe(each['mend'])}"
        yield f"  {_rows(each['rows'], each['count'])}"


def _dropped(dropped: list[dict[str, Any]]) -> Iterator[str]:
    by_reason: dict[str, list[int]] = {}
    for each in dropped:
        by_reason.setdefault(each["reason"], []).append(each["row"])
    counts = Counter({reason: len(rows) for reason, rows in by_reason.items()})
    for reason, count in counts.most_common(_REASONS_NAMED):
        yield f"- {_safe(reason)}: {_rows(by_reason[reason], count)}"
    if len(counts) > _REASONS_NAMED:
        yield f"- and {len(counts) - _REASONS_NAMED:,} more reasons; the report as JSON names each row."


def _rows(rows: list[int], count: int) -> str:
    named = ", ".join(f"{row:,}" for row in rows[:_ROWS_NAMED])
    more = f" and {count - _ROWS_NAMED:,} more" if count > _ROWS_NAMED else ""
    return f"Row{'' if count == 1 else 's'} {named}{more}." if rows else ""


def _safe(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
