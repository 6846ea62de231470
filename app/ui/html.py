"""Small pieces of HTML that every tab uses. Whatever comes from a person, a model or a log is escaped here."""

import traceback
from datetime import datetime
from html import escape

from core.sizes import show_duration
from core.text.library_errors import telling_line

duration = show_duration
WORDS = {
    "queued": "Waiting",
    "preparing": "Preparing",
    "training": "Training",
    "stopping": "Stopping",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}


def text(value: object) -> str:
    """`value` as text that is safe inside HTML, quotes included."""
    return escape(str(value), quote=True)


def state_badge(state: str) -> str:
    """A run's state in one word, coloured."""
    return f'<span class="nb-state nb-{text(state)}">{text(WORDS.get(state, state))}</span>'


def error_box(message: str, details: str = "") -> str:
    """What is wrong in one sentence, with details folded below."""
    more = f"<details><summary>Details</summary><pre>{text(details)}</pre></details>" if details else ""
    return f'<div class="nb-box nb-error" role="alert"><span>{text(message)}</span>{more}</div>'


def unforeseen(error: Exception) -> str:
    """The sentence for an error that nobody foresaw. Its traceback is printed for the log."""
    traceback.print_exception(error)
    return f"Unexpected error ({telling_line(error, kind=True)}). Please report it."


def traceback_of(error: Exception) -> str:
    """An error's traceback as text."""
    return "".join(traceback.format_exception(error))


def fault_box(error: Exception) -> str:
    """An error that nobody foresaw, with its traceback folded."""
    return error_box(unforeseen(error), traceback_of(error))


def note_box(message: str) -> str:
    """Something worth knowing, with nothing wrong."""
    return f'<div class="nb-box nb-note" role="status"><span>{text(message)}</span></div>'


def busy(message: str) -> str:
    """Something is under way."""
    return f'<div class="nb-box nb-busy" role="status"><i class="nb-spin"></i><span>{text(message)}</span></div>'


def empty(title: str, message: str) -> str:
    """What will be here, before there is anything."""
    return f'<div class="nb-empty"><b>{text(title)}</b><p>{text(message)}</p></div>'


def figure(label: str, value: str, small: str = "") -> str:
    """One number with its name over it and its unit or remark below. `value` and `small` are escaped."""
    below = f"<small>{text(small)}</small>" if small else ""
    return f'<div class="nb-figure"><label>{text(label)}</label><b>{text(value)}</b>{below}</div>'


def clock(seconds: float) -> str:
    """A point in time, local: '14:03:22'."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def date(seconds: float) -> str:
    """A point in time with its day, local: '22 Nov, 14:03'."""
    moment = datetime.fromtimestamp(seconds)
    return f"{moment.day} {moment:%b, %H:%M}"


def number(value: float) -> str:
    """A count with thousands apart: '12,345'."""
    return f"{value:,.0f}"


def step_figure(header: str, body: str) -> str:
    """A numbered heading of the form: `header` is the number, `body` the title."""
    return f'<div class="nb-step"><i>{text(header)}</i><h3>{text(body)}</h3></div>'


def progress_bar(share: float, moving: bool = False) -> str:
    """How much is done, from 0 to 1; `moving` where that is not known."""
    still = "" if moving else f' aria-valuenow="{share * 100:.0f}"'
    width = "100" if moving else f"{share * 100:.2f}"
    return (
        f'<div class="nb-bar{" nb-moving" if moving else ""}" role="progressbar" aria-label="Progress" '
        f'aria-valuemin="0" aria-valuemax="100"{still}><i style="width:{width}%"></i></div>'
    )
