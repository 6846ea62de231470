"""What the Export tab shows: what each format is, for whom and how large; how an export goes; its proof and its use."""

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from app.server.downloads import SharedFiles
from app.ui.html import busy, date, empty, error_box, note_box, progress_bar, text
from core.errors import NibbleError
from core.export.formats.registry import format_named
from core.export.jobs import ExportJob
from core.export.proof.report import check_name, check_result, is_equal, is_proved, told_checks
from core.export.shared.options import ExportOptions
from core.runs.store import Run
from core.sizes import show_bytes

# The first block of code in a README.
_USAGE = re.compile(r"```(python)?\n(.*?)```", re.DOTALL)
NOTHING = empty(
    "Nothing exported yet",
    "The proof that the export replies as the chat does will appear here, with instructions for using it.",
)


def about(run: Run | None, options: ExportOptions) -> str:
    """What one gets of `run` by these options, for whom, and how large."""
    to = format_named(options.to)
    size = ""
    if run is not None:
        try:
            size = f"<p><b>{text(to.size(run, options))}</b></p>"
        except NibbleError as error:
            size = error_box(f"The base model of this run is not where it was. {error}")
    return f'<div class="nb-gets"><p>{text(to.what)}</p><p class="nb-muted">{text(to.for_whom)}</p>{size}</div>'


def state(job: ExportJob | None, shelf: SharedFiles) -> str:
    """How the export stands: its progress, or the proof and what to do with it."""
    if job is None:
        return NOTHING
    values = job.read()
    if values["state"] == "working":
        share = values.get("share")
        return busy(values["message"]) + (progress_bar(share) if share is not None else "")
    if values["state"] == "failed":
        return error_box(values["message"])
    if values["state"] == "stopped":
        return note_box(values["message"])
    return _done(values, shelf)


def _done(values: dict[str, Any], shelf: SharedFiles) -> str:
    result = values["result"]
    folder = Path(result["dir"])
    if not folder.is_dir():
        return note_box(f"{folder.name} was moved or deleted after the export.")
    verified = result["verified"]
    whole = is_proved(verified)
    heading = "Verified" if whole else "Exported; check the proof"
    return (
        f'<div class="nb-card nb-exported"><header><span class="nb-state nb-{"finished" if whole else "stopped"}">'
        f"{heading}</span><div><h3>{text(folder.name)}</h3><small>{text(show_bytes(result['bytes']))} in "
        f"{len(result['files'])} files</small></div></header><p>{text(values['message'])}</p>{_checks(verified)}"
        f"<dl><dt>Folder</dt><dd><code>{text(folder)}</code></dd><dt>How to use it</dt>"
        f"<dd><pre>{text(usage(result))}</pre></dd></dl>{_links(values, shelf)}</div>"
    )


def _checks(verified: dict[str, Any]) -> str:
    """Each thing that was compared, by whom, and what came of it; an export of an earlier Nibble has no such list."""
    rows = ""
    for check in told_checks(verified):
        kind, mark = ("good", "✓") if is_equal(check) else ("bad", "!")
        kind, mark = (kind, mark) if check["of"] or kind == "bad" else ("none", "–")
        message = f"<b>{text(check_name(check))}</b><span>{text(check_result(check))}</span>"
        rows += f'<li class="nb-{kind}"><i>{mark}</i><div>{message}</div></li>'
    return f'<ul class="nb-doctor">{rows}</ul>' if rows else ""


def usage(result: dict[str, Any]) -> str:
    """The commands, or the lines of Python, that use what was made: those of its own README."""
    folder = Path(result["dir"])
    try:
        found = _USAGE.search((folder / "README.md").read_text(encoding="utf-8"))
    except OSError:
        found = None
    lines = found[2] if found else ""
    return f'cd "{folder}"\n' + (f"python  # then:\n{lines}" if found and found[1] else lines)


def _links(values: dict[str, Any], shelf: SharedFiles) -> str:
    """What the browser can fetch: the zip of an adapter, or single files of the folder."""
    result, patterns = values["result"], format_named(values["order"]["to"]).downloads
    names = [name for name in result["files"] if any(fnmatch(name, pattern) for pattern in patterns)]
    files = [Path(result["zip"])] if "zip" in result else [Path(result["dir"]) / name for name in names]
    links = [
        f'<a class="nb-fetch" href="{text(shelf.address(file))}" download>Download {text(file.name)} '
        f"({show_bytes(file.stat().st_size)})</a>"
        for file in files
        if file.is_file()
    ]
    return f"<p>{' '.join(links)}</p>" if links else ""


def earlier(jobs: list[ExportJob], shown: ExportJob | None) -> str:
    """Exports made before the one that is shown, the newest first."""
    rows = []
    for job in jobs:
        values = job.read()
        if (
            values["state"] == "done"
            and (shown is None or job.id != shown.id)
            and Path(values["result"]["dir"]).is_dir()
        ):
            result = values["result"]
            made = date(job.file.stat().st_mtime)
            cells = (made, format_named(values["order"]["to"]).title, show_bytes(result["bytes"]), result["dir"])
            rows.append(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in cells)}</tr>")
    if not rows:
        return ""
    return (
        "<details class='nb-earlier'><summary>Earlier exports</summary><table class='nb-table'><tbody>"
        f"{''.join(rows)}</tbody></table></details>"
    )
