"""The chat templates that trl ships, and ours, by name."""

from __future__ import annotations

from importlib.resources import files

from core.workspace import PRESETS


def _read(folder) -> dict[str, str]:
    found = sorted(each.name for each in folder.iterdir() if each.name.endswith(".jinja"))
    return {name.removesuffix(".jinja"): (folder / name).read_text(encoding="utf-8") for name in found}


TRLS = _read(files("trl") / "chat_templates")
OURS = _read(PRESETS / "templates")
TEMPLATES = {**TRLS, **OURS}
