"""The scale under the budget's slider: what of the device is free now, and what the plan needs."""

from app.ui.html import text
from core.sizes import GIB, show_size

# What is free changes all the time; a mark that moves by less than this stays.
STEP = GIB / 10


def html(least_bytes: int, most_bytes: int, free_bytes: int, needed_bytes: int | None) -> str:
    """A strip as wide as a slider from `least_bytes` to `most_bytes`, with a mark for each; no plan has no second."""
    free = round(free_bytes / STEP) * STEP
    span = max(1, most_bytes - least_bytes)

    def at(count: float) -> str:
        return f"{min(100.0, max(0.0, (count - least_bytes) / span * 100)):.1f}%"

    marks, keys = (
        [f'<i class="nb-s-free" style="--at:{at(free)}"></i>'],
        [_key("free", f"{free / GIB:.1f} GiB free now")],
    )
    if needed_bytes is not None:
        over = "" if needed_bytes <= most_bytes else ", more than there is"
        marks.append(f'<i class="nb-s-need" style="--at:{at(needed_bytes)}"></i>')
        keys.insert(0, _key("need", f"the plan needs {show_size(needed_bytes)}{over}"))
    return f'<div class="nb-scale"><div aria-hidden="true">{"".join(marks)}</div><p>{"".join(keys)}</p></div>'


def _key(kind: str, message: str) -> str:
    return f'<span class="nb-s-{kind}">{text(message)}</span>'
