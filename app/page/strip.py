"""The line at the top of every tab, and what it carries for the page's script: the title, and which run ended how."""

from app.ui.html import WORDS, number, progress_bar, text
from core.runs.heartbeat import stopping
from core.runs.store import ENDED, Run, Status

APP_NAME = "Nibble"


def strip(device: str, current: Run | None, waiting: int, ended: Run | None = None) -> str:
    """Name, device, and what is running; `ended` is the run that came to its end last."""
    running = ""
    if current is not None:
        status = current.status()
        share = status.step / status.total if status.total else 0.0
        running = f'<span class="nb-now"><b>{text(current.name)}</b> {_where(status)}{progress_bar(share)}</span>'
    if waiting:
        running += f'<span class="nb-muted">{waiting} waiting</span>'
    carried = "".join(f' data-{name}="{text(value)}"' for name, value in _carried(current, ended).items())
    return (
        f'<div class="nb-strip"{carried}><span class="nb-brand"><i></i>{APP_NAME}</span>'
        f'<span class="nb-device">{text(device)}</span>{running}'
        '<button class="nb-look" type="button" aria-label="Light or dark" title="Light or dark">◐</button></div>'
    )


def page_title(run: Run | None) -> str:
    """What a tab among twenty others says of the run at work: '45 % · step 90 of 200 · Pirate · Nibble'."""
    if run is None:
        return APP_NAME
    status = run.status()
    parts = [_where(status), run.name, APP_NAME]
    if status.total:
        parts.insert(0, f"{status.step / status.total * 100:.0f} %")
    if stopping(run) is not None:
        parts[0] = "Stopping"
    return " · ".join(parts)


def _where(status: Status) -> str:
    return f"step {number(status.step)} of {number(status.total)}" if status.total else "preparing"


def _carried(current: Run | None, ended: Run | None) -> dict[str, str]:
    carried = {"title": page_title(current), "run": current.id if current is not None else ""}
    status = ended.status() if ended is not None else None
    if ended is not None and status is not None and status.state in ENDED:
        carried |= {"ended": ended.id, "end": f"{WORDS[status.state]} · {ended.name}", "said": status.message}
    return carried
