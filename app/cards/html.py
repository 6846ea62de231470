"""What a card can train, and which cards can train a model, as tables of HTML."""

from collections.abc import Iterable, Sequence

from app.ui.html import text
from core.catalogue.facts import Card
from core.catalogue.what_fits import ON_LINUX, Fit, WhatFits
from core.sizes import show_size
from core.system.hardware import Device

ON_CARD = ("Model", "Parameters", "", "Longest context", "Memory needed")
OF_MODEL = ("Card", "GPU memory", "", "Longest context", "Memory needed")
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def on_card(fits: Sequence[Fit]) -> str:
    """The models on one card, the smallest first."""
    card = fits[0].card
    rows = ((fit.model.title, parameters(fit.model.parameters), fit) for fit in fits)
    count = sum(fit.longest is not None for fit in fits)
    message = (
        f"{card.title}: {count} of {len(fits)} models fit. {show_size(card.memory_bytes)} of its memory is usable. "
        f"It computes in {DTYPES[card.computes_in()]}{_others(fits)}."
    )
    return _muted(message) + _table(ON_CARD, rows, f"Models on {card.title}")


def _others(fits: Sequence[Fit]) -> str:
    """The models that the card computes in another dtype than usual, as the end of a sentence."""
    usual = fits[0].card.computes_in()
    odd = [fit for fit in fits if fit.dtype != usual]
    return f", and {', '.join(fit.model.title for fit in odd)} in {DTYPES[odd[0].dtype]}" if odd else ""


def of_model(fits: Sequence[Fit]) -> str:
    """The cards for one model, the smallest first."""
    model = fits[0].model
    rows = ((fit.card.title, show_size(fit.card.memory_bytes), fit) for fit in fits)
    smallest = next((fit.card.title for fit in fits if fit.longest is not None), None)
    best = (
        f"The smallest card that takes {model.title} is the {smallest}."
        if smallest
        else "It fits on none of these cards."
    )
    return _muted(best) + _table(OF_MODEL, rows, f"Cards for {model.title}")


def how(table: WhatFits) -> str:
    """How the numbers came about, and with which settings."""
    made = table.made
    with_these = ", ".join(f"{package} {version}" for package, version in made["versions"].items())
    rank = made["settings"]["lora.rank"]
    left_out = "".join(f"<li>{text(title)}: {text(reason)}</li>" for title, reason in table.left_out.items())
    return (
        '<div class="nb-box nb-note" role="note"><span>Context lengths are in tokens. They were traced, not run: the '
        "real training step was laid out without weights, and every byte was counted. "
        "<b>Not yet confirmed on a GPU.</b></span></div>"
        f'<p class="nb-say">Settings: 4 bits (NF4, double quantisation), rank {rank} on all linear layers, '
        "micro-batch 1, full gradient checkpointing, paged 32-bit AdamW, and nothing else on the card; a display takes "
        f"some of it. {ON_LINUX} The Train tab plans with your settings, on your machine. "
        "<b>Bold</b> is the longest length traced: the model's own limit, or"
        f" {max(made['lengths']):,} tokens.</p>"
        f"<details><summary>Versions, and models left out</summary><p>{text(made['date'])}: {text(with_these)}.</p>"
        f"<ul>{left_out}</ul></details>"
    )


def machine(found: Device, shown: Card, is_same: bool) -> str:
    """Which card is shown first, and why."""
    if found.kind == "cuda" and is_same:
        return _muted(f"This machine has a {shown.title}.")
    if found.kind == "cuda":
        has = f"This machine's card ({found.name}, {show_size(found.total_bytes)}) is not in the list."
        return _muted(f"{has} The closest one listed is the {shown.title}.")
    if found.kind == "mps":
        return _muted(f"Apple GPUs are not in the list; the {shown.title} is shown as an example.")
    return _muted(
        f"Nibble found no usable GPU here, so a run would use the CPU. The {shown.title} is shown as an example."
    )


def parameters(count: int) -> str:
    """A count of parameters as models are named: '135M', '8.0B'."""
    return f"{count / 1e6:.0f}M" if count < 999.5e6 else f"{count / 1e9:.1f}B"


def _table(headings: Sequence[str], rows: Iterable[tuple[str, str, Fit]], label: str) -> str:
    sides = ("left", "right", "left", "right", "right")
    head = "".join(f'<th style="text-align:{side}">{name}</th>' for name, side in zip(headings, sides, strict=True))
    body = "".join(_row(*row) for row in rows)
    return (
        f'<div class="nb-scroll nb-fitting" tabindex="0" role="region" aria-label="{text(label)}">'
        f'<table class="nb-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(title: str, size: str, fit: Fit) -> str:
    takes = show_size(fit.peak_bytes)
    if fit.longest is None:
        shortest = min(fit.peaks)
        badge, context = '<span class="nb-state">Too large</span>', "–"
        takes += f" <small>at {shortest:,}</small>"
    else:
        badge, context = '<span class="nb-state nb-finished">Fits</span>', f"{fit.longest:,}"
    context = f"<b>{context}</b>" if fit.is_limit else context
    return (
        f'<tr><td><b>{text(title)}</b></td><td class="nb-num">{text(size)}</td><td>{badge}</td>'
        f'<td class="nb-num">{context}</td><td class="nb-num">{takes}</td></tr>'
    )


def _muted(message: str) -> str:
    return f'<p class="nb-muted">{text(message)}</p>'
