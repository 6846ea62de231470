"""A memory plan as HTML: the budget filled by category, the choices and why, and what to do where nothing fits."""

import re
from typing import Any

from app.ui.form import FIELDS, as_on_screen
from app.ui.html import duration, figure, number, text
from core.sizes import MIB, parse_size, show_size
from core.step.optimizer import OPTIMIZERS

Found = dict[str, Any]

# By the names of the plan's breakdown: what a person calls it, and what it is.
CATEGORIES = {
    "weights": ("Base model", "its weights, in 4 bits where quantised"),
    "quant_constants": ("Quantisation constants", "scales that turn the 4-bit values back into numbers"),
    "slots": ("Slots", "where streamed layers lie while they compute"),
    "adapters": ("Adapter", "the trained weights"),
    "gradients": ("Gradients", "one per weight of the adapter"),
    "optimizer": ("Optimizer", "the optimizer's states for each weight of the adapter"),
    "activations": ("Activations", "what the layers keep for the backward pass"),
    "logits": ("Logits and loss", "a score for each token of the vocabulary at each position in the loss"),
    "workspace": ("Workspace", "temporary memory of single operations"),
    "allocator": ("Allocator", "blocks and gaps between tensors"),
    "context": ("Process", "before the first tensor: on a GPU the CUDA context, else Python, torch and its libraries"),
}
SETTINGS = {
    "micro_batch": "Micro-batch",
    "accumulation": "Gradient accumulation",
    "checkpointing": "Gradient checkpointing",
    "packed": "Packing",
    "activation_offload": "Activation offloading",
    "embeddings_in_ram": "Input embeddings",
    "streamed_layers": "Streamed layers",
    "heap": "Empty cache",
    "budget": "Memory budget",
}
VALUES: dict[tuple[str, Any], str] = {
    ("checkpointing", "off"): "off",
    ("checkpointing", "half"): "every second layer",
    ("checkpointing", "full"): "every layer",
    ("packed", True): "on",
    ("packed", False): "off",
    ("activation_offload", True): "on",
    ("embeddings_in_ram", True): "in CPU memory",
    ("heap", "returned"): "returned to the system at once",
    **{("train.optimizer", each.name): f"{each.label[:1].lower()}{each.label[1:]}" for each in OPTIMIZERS.values()},
}
WAYS = {
    "budget": ("Memory budget of {}", "nothing else changes"),
    "data.max_length": ("Max length of {} tokens", "longer conversations are cut"),
    "lora.rank": ("Rank {}", "a smaller adapter"),
    "train.optimizer": ("Optimizer {}", "its states in 8 bits instead of 32"),
}
_PERCENT = re.compile(r"(?<=\d)%")
LABELS = {key: field.label for key, field in FIELDS.items()}
# A fill narrower than this share of its budget is drawn once more, enlarged.
NARROW = 0.4
DAYS = 48 * 3600  # seconds; what takes longer is told in days

# For gr.HTML: what carries data-change is a button.
ACT = """
element.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-change]");
  if (pressed) trigger("click", { change: pressed.dataset.change });
});
"""


def plan(found: Found, most_bytes: int, planning: bool = False) -> str:
    """The whole card. `most_bytes` is the memory of the device: no larger budget is offered to be set."""
    state = '<div class="nb-work" role="status"><i class="nb-spin"></i>planning…</div>' if planning else ""
    colour, word = ("finished", "Fits") if found["fits"] else ("failed", "Does not fit")
    parts = [_figures(found), _bar(found), _legend(found["breakdown"])]
    parts += [_choices(found["reasons"])] if found["fits"] else [_ways(found, most_bytes)]
    return (
        f'<section class="nb-card nb-plan{" nb-stale" if planning else ""}"><header>'
        f'<span class="nb-state nb-{colour}">{word}</span><div><h3>Memory plan</h3>'
        f'<small>{verdict(found)}</small></div>{state}</header><div class="nb-plan-body">{"".join(parts)}'
        f"{_assumed(found['assumed'])}</div></section>"
    )


def first() -> str:
    """Before the first plan is there."""
    return (
        '<section class="nb-card nb-plan nb-plan-first"><header><span class="nb-state">Planning…</span><div>'
        "<h3>Memory plan</h3><small>Counting the memory of one training step.</small></div>"
        '<div class="nb-work" role="status"><i class="nb-spin"></i></div></header></section>'
    )


def failed(sentence: str) -> str:
    """Why there is no plan. Quietly: the check below says in red what hinders the start, mostly the same."""
    return (
        '<section class="nb-card nb-plan nb-plan-none"><header><span class="nb-state">No plan</span><div>'
        f"<h3>Memory plan</h3><small>{text(as_on_screen(sentence))}</small></div></header></section>"
    )


def verdict(found: Found) -> str:
    """Whether it fits, in one sentence."""
    peak, budget = found["peak_bytes"]["process"], found["budget_bytes"]
    if found["fits"]:
        return f"It fits: {size(peak)} at peak, {size(budget - peak)} of the budget stays free."
    return (
        f"It does not fit: even the most frugal settings take {size(peak)}, {size(peak - budget)} more than the budget."
    )


def size(count: float) -> str:
    """Bytes with a unit, also where they are few: '8 KiB'."""
    if count >= MIB:
        return show_size(count)
    return f"{count / 2**10:.0f} KiB" if count >= 2**10 else f"{count:.0f} B"


def roughly(seconds: float) -> str:
    """An estimate, no more exact than it is: 'about 40 s', 'about 4 min', 'about 2 h 10 min', 'about 3 days'."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {round(seconds / 5) * 5} s"
    if seconds < 3570:
        return f"about {max(1, round(seconds / 60))} min"
    if seconds > DAYS:
        return f"about {round(seconds / 86_400)} days"
    return f"about {duration(round(seconds / 600) * 600).replace(' 00 min', '')}"


def _figures(found: Found) -> str:
    budget, peak = found["budget_bytes"], found["peak_bytes"]
    figures = [
        figure("peak memory", size(peak["process"]), f"{size(peak['tensors'])} of it in torch's tensors"),
        figure("budget", size(budget), f"{peak['process'] / budget:.0%} of it needed".replace("%", " %")),
    ]
    if found["fits"]:
        figures.append(_time(found))
        if found["smallest_budget_bytes"] < peak["process"]:
            least = size(found["smallest_budget_bytes"])
            figures.append(figure("smallest budget", least, "would also work, more slowly"))
    else:
        figures.append(figure("smallest budget", size(found["smallest_budget_bytes"]), "that works"))
    return f'<div class="nb-figures nb-wide-figures">{"".join(figures)}</div>'


def _time(found: Found) -> str:
    pace, steps = found["seconds_per_step"], found.get("steps")
    each = f"{pace:.2g} s" if pace < 10 else roughly(pace).removeprefix("about ")
    if not steps:
        return figure("time", f"about {each}", "a step")
    return figure("time", roughly(pace * steps), f"{number(steps)} steps of {each}")


def _bar(found: Found) -> str:
    peak, budget = found["peak_bytes"]["process"], found["budget_bytes"]
    whole = max(peak, budget)
    filled = peak / whole
    parts = _segments(found["breakdown"], whole)
    message = f"{size(peak)} needed of a budget of {size(budget)}"
    over = "" if found["fits"] else f'<i class="nb-m-over" style="left:{budget / whole * 100:.3f}%"></i>'
    narrow = filled < NARROW
    thin = " nb-m-thin" if narrow else ""
    bar = f'<div class="nb-m-bar{thin}" role="img" aria-label="{message}">{parts}{over}</div>'
    marks = _mark("peak", f"peak {size(peak)}", filled)
    limit = _mark("budget", f"budget {size(budget)}", budget / whole)
    if not narrow:  # the two labels could meet
        below = f'<div class="nb-m-below">{limit}</div>'
        return f'<div class="nb-m"><div class="nb-m-marks">{marks}</div>{bar}{below}</div>'
    lens = f'<path d="M0 0H{filled * 100:.2f}L100 10H0Z"/>'
    return (
        f'<div class="nb-m"><div class="nb-m-marks">{marks}{limit}</div>{bar}'
        f'<svg class="nb-m-lens" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{lens}</svg>'
        f'<div class="nb-m-bar" role="img" aria-label="The {size(peak)} enlarged">'
        f"{_segments(found['breakdown'], peak)}</div></div>"
    )


def _mark(kind: str, message: str, share: float) -> str:
    """A label beside the bar that points at `share` of its width and never leaves it."""
    at = f"{share * 100:.2f}%"
    return f'<div class="nb-m-{kind}" style="--at:{at}"><i></i><span>{message}</span></div>'


def _segments(breakdown: dict[str, int], whole: int) -> str:
    return "".join(
        f'<i class="nb-m-{text(kind)}" style="width:{count / whole * 100:.3f}%" '
        f'data-said="{text(_name(kind))}: {size(count)}"></i>'
        for kind, count in breakdown.items()
        if count > 0
    )


def _name(kind: str) -> str:
    return CATEGORIES.get(kind, (kind.replace("_", " "), ""))[0]


def _legend(breakdown: dict[str, int]) -> str:
    rows = "".join(
        f'<li data-said="{text(_name(kind))}: {text(CATEGORIES.get(kind, ("", ""))[1])}">'
        f'<i class="nb-m-{text(kind)}"></i><span>{text(_name(kind))}</span><b>{size(count)}</b></li>'
        for kind, count in breakdown.items()
        if count > 0
    )
    return f'<ul class="nb-m-legend" aria-label="Memory by use, at the peak">{rows}</ul>'


def _choices(reasons: list[Found]) -> str:
    names = {**LABELS, **SETTINGS}
    rows = "".join(
        f"<div><dt>{text(names.get(each['setting'], each['setting'].replace('_', ' ').capitalize()))}</dt>"
        f"<dd><b>{text(_value(each))}</b> <span>{text(_as_sentence(each['because']))}</span></dd></div>"
        for each in reasons
    )
    return f'<h4>Choices and reasons</h4><dl class="nb-choices">{rows}</dl>' if rows else ""


def _value(reason: Found) -> str:
    value = reason["value"]
    return VALUES.get((reason["setting"], value), f"{value:,}" if isinstance(value, int) else str(value))


def _as_sentence(because: str) -> str:
    message = _PERCENT.sub(" %", as_on_screen(because).strip())
    return f"{message[:1].upper()}{message[1:]}." if message else ""


def _ways(found: Found, most_bytes: int) -> str:
    rows = "".join(_strategy(each, most_bytes) for each in found["ways"])
    if not rows:
        return ""
    return f'<h4>Changes that save memory</h4><ul class="nb-ways">{rows}</ul>'


def _strategy(strategy: Found, most_bytes: int) -> str:
    key, _, value = strategy["change"].partition("=")
    message, effect = WAYS.get(key, (f"{LABELS.get(key, key)}: {{}}", ""))
    least = parse_size(value, most_bytes) if key == "budget" else 0
    shown = size(least) if key == "budget" else f"{int(value):,}" if value.isdigit() else value
    takes = f"takes {size(strategy['peak_bytes'])}" + ("" if strategy["fits"] else ", still too much")
    remark = " · ".join(part for part in (effect, "" if key == "budget" else takes) if part)
    use = (
        f'<button type="button" class="nb-button" data-change="{text(strategy["change"])}" '
        f'aria-label="Use it: {text(message.format(shown))}">Use it</button>'
    )
    if least > most_bytes:
        use = f"<em>This machine has {size(most_bytes)}</em>"
    return f"<li><div><b>{text(message.format(shown))}</b><small>{text(remark)}</small></div>{use}</li>"


def _assumed(assumed: list[str]) -> str:
    if not assumed:
        return ""
    rows = "".join(f"<li>{text(_as_sentence(each.partition(': ')[2] or each))}</li>" for each in assumed)
    return f'<h4>Assumptions</h4><ul class="nb-assumed">{rows}</ul>'
