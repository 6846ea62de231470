"""All that waits for a card, measured on it: each part in a process of its own, within a total time that is dealt out.

A part that fails costs only itself. What was left out is said, and why. Writes one JSON file, and the same as a table
beside it. With `tiny` the models have a few layers, to see that all of it runs; their figures say nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench import _keep
from bench._gpu_frame import Item, Row, failure, row, without_bars
from bench._gpu_parts import PARTS, Part
from core.errors import CallError, NibbleError
from core.runs.device_lock import hold
from core.sizes import show_duration
from core.system.hardware import claim_card, device, unused_card
from core.system.process import as_process, end_tree, process_started
from core.text.library_errors import telling_line_of
from core.workspace import Workspace

MINUTES = 25.0
# A part notices itself when its time is over; after so many seconds more it is ended.
GRACE_SECONDS = 15.0


@dataclass
class Done:
    """What a part has measured, and what was left out of it."""

    part: Part
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def main(
    seed: int = 0,
    tiny: bool = False,
    minutes: float = MINUTES,
    only: Sequence[str] = (),
    workspace: Workspace | None = None,
    out: Path | None = None,
) -> list[Row]:
    """Rows of figures, as `bench NAME --json` prints them. `only`: these parts and no others.

    They go to the file `out` as well, as JSON, and as a table to the same name with .md. Raises NibbleError where there
    is no card, or another process of this workspace uses it.
    """
    refuse_without_card()
    claim_card()
    workspace, parts = workspace or Workspace.open(None), _chosen(only)
    os.environ["NIBBLE_DATA_DIR"] = str(workspace.path)  # where a part keeps what runs are to go by
    began = time.monotonic()
    with hold(workspace, "run", "bench gpu"):
        done = [*measure_all(parts, seed, tiny, began + 60 * minutes)]
    rows = [each for one in done for each in one.rows]
    rows = without_bars(rows) if tiny else rows
    rows += _summary(done, time.monotonic() - began, 60 * minutes)
    notes = [f"Left out: {sentence}" for one in done for sentence in one.left_out]
    notes = ["Tiny models: these figures say nothing.", *notes] if tiny else notes
    if out is not None:
        _keep.write(out, "gpu", seed, rows, notes)
    return rows


def refuse_without_card() -> None:
    """Raise NibbleError where there is no card that torch can use."""
    if device().kind == "cuda":
        return
    idle = unused_card()
    if idle is None:
        raise NibbleError("bench gpu: no NVIDIA GPU was found on this machine, so there is nothing to measure.")
    raise NibbleError(
        f"bench gpu: {idle} is present, but the installed torch supports only the CPU. Update the NVIDIA driver, then "
        f"run `python launch.py --reinstall`."
    )


def _chosen(only: Sequence[str]) -> list[Part]:
    unknown = set(only) - {part.name for part in PARTS}
    if unknown:
        names = ", ".join(part.name for part in PARTS)
        raise CallError(f"bench gpu has no part called {sorted(unknown)[0]!r}. Its parts: {names}.")
    return [part for part in PARTS if not only or part.name in only]


def measure_all(parts: Sequence[Part], seed: int, tiny: bool, ends_at: float) -> Iterator[Done]:
    """Each part in turn. Each gets its share of the time that is left: what one does not need, the next ones have."""
    for number, part in enumerate(parts):
        shares = sum(each.seconds for each in parts[number:])
        limit = max(1.0, (ends_at - time.monotonic()) * part.seconds / max(shares, 1))
        print(f"{part.name}: {part.about}. At most {show_duration(limit)}.", file=sys.stderr, flush=True)
        began = time.monotonic()
        done = measure(part, seed, tiny, limit)
        for item in done.rows:
            print(f"    {item['name']}: {item['value']:,} {item['unit']}", file=sys.stderr)
        for sentence in done.left_out:
            print(f"    Left out: {sentence}", file=sys.stderr)
        print(f"    took {show_duration(time.monotonic() - began)}", file=sys.stderr, flush=True)
        yield done


def measure(part: Part, seed: int, tiny: bool, seconds: float) -> Done:
    """Run one part as a process. What it has written counts, however it ends."""
    command = as_process("bench._gpu_parts", part.name, str(seed), str(seconds), *(["tiny"] if tiny else []))
    with tempfile.TemporaryFile() as written, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(**command, stdout=written, stderr=errors, stdin=subprocess.DEVNULL)
        started = process_started(process.pid)
        ended = False
        try:
            ended = process.wait(seconds + GRACE_SECONDS) is not None
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_tree(process.pid, started)
            process.wait()
        done = _read(part, _text(written))
        if not ended:
            done.left_out.append(f"{part.name}: it was ended at its time limit, {show_duration(seconds)}.")
        elif process.returncode:
            why = telling_line_of(_text(errors), f"exit status {process.returncode}")
            done.rows.append(failure(part.name, why))
    return done


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


def _read(part: Part, text: str) -> Done:
    """The items of its lines; a part that was ended may have left half a line."""
    done = Done(part)
    for line in text.splitlines(keepends=True):
        item: Item = json.loads(line) if line.endswith("\n") else ""
        if isinstance(item, dict):
            done.rows.append(item)
        elif item:
            done.left_out.append(item)
    return done


def _summary(done: Sequence[Done], seconds: float, limit: float) -> list[Row]:
    """How many parts measured something, and how long all took."""
    parts = sum(bool(one.rows) for one in done)
    return [
        row("parts with figures", parts, "parts", len(done), None, None),
        row("time taken", seconds / 60, "min", None, limit / 60, seconds <= limit + GRACE_SECONDS),
    ]
