"""What `.venv` was installed from, and whether that is still so. Read at every start, so it imports little.

A stamp in .venv keeps the facts of the last install. It is written last, so an install that was cut short has
none and is done again, which finishes it.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "nibble.json"
REQUIREMENTS = ROOT / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"


def say(message: str) -> None:
    """Speak on standard error: standard output belongs to the command."""
    print(f"nibble: {message}", file=sys.stderr, flush=True)


def ready(dev: bool) -> bool:
    return fingerprint(dev).items() <= read_stamp().items()


def read_stamp() -> dict[str, Any]:
    try:
        return dict(json.loads(STAMP.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def write_stamp(facts: dict[str, Any]) -> None:
    part = STAMP.with_suffix(".part")
    part.write_text(json.dumps(facts, indent=1), "utf-8")
    part.replace(STAMP)


def fingerprint(dev: bool) -> dict[str, Any]:
    """What must be unchanged for nothing to be installed. `dev`: with what the tests need."""
    facts = {
        "requirements": hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest(),
        "torch_index_url": os.environ.get("TORCH_INDEX_URL", ""),
        "python": base_python(),
        "hardware": hardware_mark(),
    }
    if dev:
        facts["requirements_dev"] = hashlib.sha256(DEVELOPMENT.read_bytes()).hexdigest()
    return facts


def base_python() -> str:
    """The Python that .venv stands on, with its date; `gone` where a system upgrade removed it."""
    base = PYTHON.resolve()
    config = VENV / "pyvenv.cfg"
    if os.name == "nt" and config.exists():  # there .venv holds a copy, and pyvenv.cfg says of what
        settings = dict(line.split(" = ", 1) for line in config.read_text("utf-8").splitlines() if " = " in line)
        base = Path(settings["home"], "python.exe")
    if not (PYTHON.exists() and base.exists()):
        return "gone"
    return f"{base} {int(base.stat().st_mtime)}"


def hardware_mark() -> str:
    """A text that changes with the NVIDIA driver, and on Linux itself with the cards."""
    marks = []
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        marks = driver.read_text().splitlines()[:1]
        marks += sorted(card.name for card in Path("/proc/driver/nvidia/gpus").glob("*"))
    windows = Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvidia-smi.exe")
    for tool in (Path("/usr/lib/wsl/lib/nvidia-smi"), windows):  # these are replaced together with the driver
        if tool.exists():
            marks.append(f"{tool} {int(tool.stat().st_mtime)}")
    return "; ".join(marks)
