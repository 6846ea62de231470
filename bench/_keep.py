"""Writes a benchmark's figures into docs/benchmarks.md, with date, machine and versions: none is typed by hand.

python -m bench._keep FILE.json      (keeps what `bench gpu` has written on another machine)
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from core.system.hardware import cpu_cores, cuda_driver, device
from core.workspace import ROOT, read_json, write_json

FILE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `python launch.py bench NAME --keep`, never by hand. Each figure and its reference come from the same run.
"""
PACKAGES = ("torch", "transformers", "bitsandbytes", "peft", "trl", "gradio")
Rows = list[dict[str, Any]]


def keep(name: str, seed: int, rows: Rows, notes: Sequence[str] = ()) -> None:
    """Replace the section of benchmark `name` with these rows. GPU measurements have sections of their own."""
    if rows:
        _replace(_section(name, _measured_on(seed), rows, notes))


def write(file: Path, name: str, seed: int, rows: Rows, notes: Sequence[str]) -> None:
    """Write the rows, and on what they were measured, as JSON to `file`, and as a table to the same name with .md."""
    file.parent.mkdir(parents=True, exist_ok=True)
    on = _measured_on(seed)
    write_json(file, {"name": name, "on": on, "rows": rows, "notes": list(notes)})
    file.with_suffix(".md").write_text(_section(name, on, rows, notes), encoding="utf-8")


def _replace(section: str) -> None:
    text = FILE.read_text(encoding="utf-8") if FILE.is_file() else HEAD
    heading = section.partition("\n")[0]
    parts = re.split(r"(?m)^(?=## )", text)
    others = [part for part in parts[1:] if not part.startswith(f"{heading}\n")]
    sections = sorted([*others, section])
    FILE.write_text(HEAD + "\n" + "\n".join(part.strip() + "\n" for part in sections), encoding="utf-8")


def _measured_on(seed: int) -> dict[str, Any]:
    """Whether it was a GPU, and the line of date, machine and versions."""
    versions = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    driver = f", driver {cuda_driver()}" if device().kind == "cuda" else ""
    machine = f"{device().name}{driver} ({_processor()}, {cpu_cores()} cores), {platform.system()}"
    line = f"{today} · {machine} · Python {platform.python_version()} · {versions} · seed {seed}"
    return {"gpu": device().kind == "cuda", "line": line}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # on a machine that only measures
        return "none"


def _section(name: str, on: dict[str, Any], rows: Rows, notes: Sequence[str]) -> str:
    name = f"{name}, on a GPU" if on["gpu"] and name != "gpu" else name
    lines = [f"## {name}", "", on["line"], "", "| what | value | reference | bar | holds |", "|---|---|---|---|---|"]
    for row in rows:
        holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
        cells = (
            row["name"].replace("|", "/"),
            f"{_cell(row['value'])} {row['unit']}",
            _cell(row["reference"]),
            _cell(row["bar"]),
            holds,
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [""] * bool(notes) + [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return "" if value is None else f"{round(value, 3):,}" if isinstance(value, (int, float)) else str(value)


def _processor() -> str:
    return platform.processor() or platform.machine()


def main(file: Path) -> None:
    """Replace the section by what `write` has written to `file`."""
    kept = read_json(file)
    _replace(_section(kept["name"], kept["on"], kept["rows"], kept["notes"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
