"""What the doctor found, as HTML: green and red, each red with the line that mends it."""

import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from app.ui.html import empty, text
from core.runs.delete import size_bytes
from core.runs.store import Run
from core.sizes import show_size
from core.system.doctor import PACKAGES


def findings(found: Mapping[str, Any]) -> str:
    """The doctor's findings."""
    device, torch, bits = found["device"], found["torch"], found["bitsandbytes"]
    good = [
        ("Python", found["python"]),
        ("Device", f"{device['name']}, {show_size(device['total_bytes'])}, {show_size(device['free_bytes'])} free"),
        ("Computes in", f"{found['compute_dtype']}: {found['because']}"),
        ("Disk", f"{show_size(found['disk']['free_bytes'])} free of {show_size(found['disk']['total_bytes'])}"),
    ]
    if torch:  # None where it cannot be imported; then that is among the problems
        cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "without CUDA"
        good.append(("torch", f"{torch['version']}, {cuda}"))
    if bits and bits["nf4_works"]:
        good.append(("bitsandbytes", f"{bits['version']}, NF4 test passed"))
    problems = found["problems"]
    red = "".join(
        f'<li class="nb-bad"><i>!</i><div><b>{text(problem["what"])}</b><code>{text(problem["mend"])}</code></div></li>'
        for problem in problems
    )
    noted = "".join(
        f'<li class="nb-none"><i>i</i><div><b>Note</b><span>{text(note)}</span></div></li>' for note in found["notes"]
    )
    green = "".join(
        f'<li class="nb-good"><i>✓</i><div><b>{text(name)}</b><span>{text(value)}</span></div></li>'
        for name, value in good
    )
    return f'<ul class="nb-doctor">{red}{noted}{green}</ul>'


def versions() -> str:
    """What runs here, in lines to copy into a bug report. From the packages' records: nothing is imported."""
    lines = [f"Python {sys.version.split()[0]}", f"{platform.system()} {platform.release()} {platform.machine()}"]
    lines += [f"{package} {metadata.version(package)}" for package in PACKAGES]
    return "\n".join(lines)


def disk(runs: list[Run]) -> str:
    """How much each run takes, the largest first."""
    if not runs:
        return empty("No runs yet", "Disk use of each run is listed here.")
    sizes = sorted(((size_bytes(run.dir), run) for run in runs), key=lambda pair: -pair[0])
    top = sizes[0][0] or 1
    rows = "".join(
        f'<tr><td>{text(run.name)}</td><td class="nb-num">{show_size(size)}</td>'
        f'<td><div class="nb-bar"><i style="width:{size / top * 100:.1f}%"></i></div></td></tr>'
        for size, run in sizes[:30]
    )
    total = show_size(sum(size for size, _ in sizes))
    return (
        f'<p class="nb-muted">{total} in total. Delete runs on the Runs tab.</p>'
        f'<table class="nb-table nb-disk">{rows}</table>'
    )
