"""The server's process stays light: it never imports torch, and gradio stays out of the engine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate"}


def _imports(file: Path) -> set[str]:
    """The packages that `file` imports at its top level or within a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_nothing_in_core_imports_gradio(root: Path) -> None:
    assert not [file for file in (root / "core").rglob("*.py") if "gradio" in _imports(file)]


def test_nothing_in_app_imports_the_engines_libraries(root: Path) -> None:
    assert not [file for file in (root / "app").rglob("*.py") if _imports(file) & HEAVY]


def test_a_page_that_is_built_has_imported_none_of_them(root: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from core.workspace import Workspace\n"
        "from app.context import Context\n"
        "from app.page.build import build_page, open_tabs\n"
        f"context = Context.open(Workspace.open({str(tmp_path)!r}))\n"
        "build_page(context, open_tabs(context))\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_no_selector_holds_a_comma_within_brackets(root: Path) -> None:
    """Gradio takes a list of selectors apart at every comma: what is left of `:has(a, b)` hides too much."""
    style = re.sub(r"/\*.*?\*/", "", (root / "app/static/nibble.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    selectors = re.findall(r"([^{};]*)\{", style)
    assert len(selectors) > 300
    assert not [each for each in selectors if not each.strip().startswith("@") and re.search(r"\([^()]*,", each)]
