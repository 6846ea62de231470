"""What will be trained on, as HTML: one row in coloured tokens, and what the check found."""

from typing import Any

from app.ui.form import as_on_screen
from app.ui.html import error_box, figure, note_box, number, text
from app.ui.tokens import KEYS, tokens_html
from core.sizes import show_bytes


def preview(found: dict[str, Any]) -> str:
    """One row of the data as the model will see it, token by token; trained ones are coloured."""
    cut = "" if not found.get("truncated_here") else f", cut at {number(found['max_length'])}"
    return (
        '<section class="nb-card nb-preview"><header><div><h3>A training example</h3>'
        f"<small>row {number(found['row'])} of {number(found['rows'])} · {number(found['length'])} tokens{cut} · "
        f"{number(found['trained'])} count in the loss</small></div>{KEYS}</header>"
        f"{tokens_html(found['tokens'])}</section>"
    )


def check(found: dict[str, Any]) -> str:
    """What the check found, good or bad, for the place above the preview."""
    errors = "".join(error_box(as_on_screen(problem["message"])) for problem in found["errors"])
    advice = "".join(note_box(as_on_screen(message)) for message in found.get("advice") or [])
    figures = [*_model_figures(found), *_data_figures(found)]
    body = f'<div class="nb-figures">{"".join(figures)}</div>' if figures else ""
    colour, word = ("finished", "Ready") if found["ok"] else ("failed", "Not yet")
    dropped = dropped_rows((found.get("data") or {}).get("dropped") or [])
    return (
        f'<section class="nb-card"><header><span class="nb-state nb-{colour}">{word}</span>'
        "<div><h3>Checks</h3></div></header>"
        f"{errors}{advice}{body}{dropped}</section>"
    )


def _model_figures(found: dict[str, Any]) -> list[str]:
    figures = []
    model = found.get("model") or {}
    if model.get("parameters"):
        layers = f"{model['layers']} layers" if model.get("layers") else ""
        figures.append(figure("model", f"{_short(model['parameters'])} parameters", layers))
    if model.get("download_bytes"):
        figures.append(figure("download", show_bytes(model["download_bytes"]), "at the start, from Hugging Face"))
    if found.get("compute_dtype"):
        figures.append(figure("computes in", found["compute_dtype"], found.get("because", "")))
    return figures


def _data_figures(found: dict[str, Any]) -> list[str]:
    data = found.get("data") or {}
    figures = []
    if data.get("rows") is not None:
        usable = data.get("usable", data["rows"])
        evidence = data.get("evidence", "").replace("`", "")
        figures.append(figure("rows", f"{number(usable)} of {number(data['rows'])} usable", evidence))
    if data.get("truncated"):
        figures.append(figure("too long", f"{number(data['truncated'])} rows", "cut at the length limit"))
    if found.get("steps"):
        figures.append(figure("training", f"{number(found['steps'])} steps"))
    return figures


def dropped_rows(dropped: list[dict[str, Any]]) -> str:
    """The rows that cannot be used, by reason, folded."""
    if not dropped:
        return ""
    lines = "".join(f"<li>row {number(item['row'])}: {text(item['reason'])}</li>" for item in dropped[:50])
    more = f"<li>… and {number(len(dropped) - 50)} more</li>" if len(dropped) > 50 else ""
    rows = f"{number(len(dropped))} rows are" if len(dropped) > 1 else "One row is"
    return f'<details class="nb-more"><summary>{rows} left out</summary><ul>{lines}{more}</ul></details>'


def _short(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return number(count)
