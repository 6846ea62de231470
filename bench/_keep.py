"""Writes a benchmark's figures into docs/benchmarks.md, with date, machine and versions: none is typed by hand."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from core.system.hardware import cpu_cores, cuda_driver, device
from core.workspace import ROOT

FILE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `python launch.py bench NAME --keep`, never by hand. Each figure and its reference come from the same run.
"""
PACKAGES = ("torch", "transformers", "bitsandbytes", "peft", "trl", "gradio")


def keep(name: str, seed: int, rows: list[dict[str, Any]]) -> None:
    """Replace the section of benchmark `name` with these rows. GPU measurements have sections of their own."""
    if not rows:
        return
    name = f"{name}, on a GPU" if device().kind == "cuda" else name
    text = FILE.read_text(encoding="utf-8") if FILE.is_file() else HEAD
    parts = re.split(r"(?m)^(?=## )", text)
    others = [part for part in parts[1:] if not part.startswith(f"## {name}\n")]
    sections = sorted([*others, _section(name, seed, rows)])
    FILE.write_text(HEAD + "\n" + "\n".join(part.strip() + "\n" for part in sections), encoding="utf-8")


def _section(name: str, seed: int, rows: list[dict[str, Any]]) -> str:
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    driver = f", driver {cuda_driver()}" if device().kind == "cuda" else ""
    machine = f"{device().name}{driver} ({_processor()}, {cpu_cores()} cores), {platform.system()}"
    lines = [
        f"## {name}",
        "",
        f"{today} · {machine} · Python {platform.python_version()} · {versions} · seed {seed}",
        "",
        "| what | value | reference | bar | holds |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
        cells = (row["name"], f"{_cell(row['value'])} {row['unit']}", _cell(row["reference"]), _cell(row["bar"]), holds)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return "" if value is None else f"{round(value, 3):,}" if isinstance(value, (int, float)) else str(value)


def _processor() -> str:
    return platform.processor() or platform.machine()
