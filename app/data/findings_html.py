"""What the linter says of a dataset, as HTML: worst first, each with its rows. All of it escaped."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from app.ui.form import as_on_screen
from app.ui.html import busy, number, text

State = dict[str, Any]
AT_WORK = ("starting", "reading", "tokens")
SEVERITIES = {"error": "Must be fixed", "warning": "Worth checking", "note": "Note"}
CHIPS, REASONS = 30, 100
_CODE = re.compile(r"`([^`]+)`")


def findings(state: State, more: dict[str, list[int]]) -> str:
    """What the linter says, worst first, each with its rows; then the rows that are left out, by reason."""
    if "warnings" not in state:
        return ""
    order = list(SEVERITIES)
    found = sorted(state["warnings"], key=lambda each: (order.index(each["severity"]), -each.get("count", 0)))
    items = "".join(_finding(each, more) for each in found) + _left_out(state)
    title = (
        '<header><div><h3 id="nb-findings">Findings</h3><small>most severe first; open one to see its rows'
        "</small></div>"
    )
    if not items and state["stage"] != "done":
        items = busy("Still looking…")
    elif not items:
        items = '<p class="nb-say">No problems found in any row.</p>'
    return f'<section class="nb-card nb-findings">{title}</header>{items}</section>'


def _finding(found: dict[str, Any], more: dict[str, list[int]]) -> str:
    code, severity = found["code"], found["severity"]
    rows = list(dict.fromkeys([*found["rows"], *more.get(code, ())]))
    count = found.get("count") or len(rows)
    places = f"<em>{count_rows(count)}</em>" if count else ""
    mend = f"<p>{words(found['mend'])}</p>" if found.get("mend") else ""
    shown = rows if code in more else rows[:CHIPS]
    return (
        f'<details data-code="{text(code)}" class="nb-finding nb-f-{text(severity)}"><summary><i>'
        f"{text(SEVERITIES[severity])}</i><span>{words(found['message'])}</span>{places}</summary>"
        f'<div class="nb-mend">{mend}{_chips(shown)}{_more(code, len(shown), count)}</div></details>'
    )


def _more(code: str, shown: int, count: int) -> str:
    if shown >= count:
        return ""
    return (
        f'<button type="button" class="nb-button" data-act="more" data-value="{text(code)}"'
        f">Show more of the {number(count)} rows</button>"
    )


def _and_more(count: int) -> str:
    return f'<p class="nb-muted">and {count_rows(count)} more</p>' if count > 0 else ""


def _chips(rows: Sequence[int]) -> str:
    if not rows:
        return ""
    buttons = "".join(
        f'<button type="button" class="nb-chip" data-act="row" data-value="{int(row)}">row {number(row)}</button>'
        for row in rows
    )
    return f'<div class="nb-chips">{buttons}</div>'


def _left_out(state: State) -> str:
    """The rows that cannot be used: one finding for each reason."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    listed = state.get("dropped") or ()
    for drop in listed:
        by_reason[drop["reason"]].append(drop["row"])
    among = f" of the first {number(len(listed))}" if len(listed) < state["rows"] - state["usable"] else ""
    reasons = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    rest = len(reasons) - REASONS
    others = f'<p class="nb-say">and {number(rest)} more reasons. The report lists each row.</p>' if rest > 0 else ""
    items = "".join(
        f'<details data-code="left out: {text(reason)}" class="nb-finding nb-f-left"><summary><i>Left out</i>'
        f"<span>{words(reason)}</span><em>{count_rows(len(rows))}{among}</em></summary>"
        f'<div class="nb-mend">{_chips(rows[:CHIPS])}{_and_more(len(rows) - CHIPS)}</div></details>'
        for reason, rows in reasons[:REASONS]
    )
    return items + others


def words(sentence: str) -> str:
    """A sentence with each setting called as on the screen, and the names between its backticks set as code."""
    return _CODE.sub(r"<code>\1</code>", text(as_on_screen(sentence)))


def error_in_words(sentence: str) -> str:
    """What is wrong, in the words of `words`."""
    return f'<div class="nb-box nb-error" role="alert"><span>{words(sentence)}</span></div>'


def count_rows(count: int) -> str:
    """'1 row', '1,234 rows'."""
    return "1 row" if count == 1 else f"{number(count)} rows"
