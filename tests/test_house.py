"""The rules that hold the house together: who may import what, and what may never be in the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from core.setup.install import name_of, requirements
from core.workspace import ROOT

HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets"}


def _sources(*folders: str) -> list[Path]:
    return [ROOT / "launch.py", *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]


def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("file", _sources("core"), ids=lambda file: file.name)
def test_the_engine_knows_no_screen(file: Path) -> None:
    assert "gradio" not in _imported(file)
    assert "app" not in _imported(file) or file == ROOT / "core/cli/main.py"


@pytest.mark.parametrize("file", _sources("app"), ids=lambda file: file.name)
def test_the_app_asks_for_no_engine_library(file: Path) -> None:
    assert not HEAVY & _imported(file)


@pytest.mark.parametrize(
    "module", ["app.main", "core.launch.submit", "core.preflight.process", "core.chat.client", "core.cli.main"]
)
def test_what_the_server_imports_brings_no_torch(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {sorted(HEAVY)!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("file", _sources("app", "core", "presets", "bench"), ids=lambda file: file.name)
def test_every_file_says_its_purpose_first(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_every_package_that_is_imported_is_listed() -> None:
    """A package that another brings along goes, or changes, when that one does."""
    files = [ROOT / name for name in ("requirements.txt", "requirements-llama-cpp.txt")]
    listed = {name_of(line).lower() for file in files for line in requirements(file)}
    ours = {"core", "app", "tests"} | sys.stdlib_module_names
    imported = {name for file in _sources("core", "app") for name in _imported(file)} - ours
    distributions = packages_distributions()
    assert [name for name in sorted(imported) if not listed & {each.lower() for each in distributions[name]}] == []


@pytest.mark.parametrize("file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: file.name)
def test_what_tests_share_lies_in_no_test_file(file: Path) -> None:
    """Nor in a conftest.py, whose fixtures come by themselves."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            named = [str(node.module), *(f"{node.module}.{each.name}" for each in node.names)]
        else:
            named = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        parts = [name.rpartition(".")[2] for name in named if name.startswith("tests")]
        assert not [part for part in parts if part.startswith("test_") or part == "conftest"]


# From the top. A file imports from layers below its own, and from its own package; packages of one layer know nothing
# of each other.
LAYERS = (
    "core.cli", "app.main", "app.page", "app.train app.arena",
    "app.chat app.data app.runs app.export app.cards app.system", "app.context", "app.run_view", "app.ui", "app.server",
    "core.preflight", "core.serve", "core.launch", "core.train", "core.chat", "core.export", "core.arena",
    "core.memory", "core.step", "core.generation", "core.model", "core.runs", "core.recipe", "core.data",
    "core.basemodel", "core.catalogue", "core.untrusted", "core.system", "core.settings", "core.setup", "core.sizes",
    "core.text", "core.workspace", "core.errors",
)  # fmt: skip
LEVELS = {package: level for level, packages in enumerate(reversed(LAYERS)) for package in packages.split()}
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in _sources("core", "app")
    if file.name != "launch.py"
}


def _ours(file: Path) -> set[str]:
    """The modules of core/ and app/ that `file` imports, inside functions and for types alone too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            inside = {f"{node.module}.{each.name}" for each in node.names}
            found |= (inside & MODULES.keys()) or {str(node.module)}
    return found & MODULES.keys()


def _package(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _level(package: str) -> int:
    """Its place from the bottom; a package of app/ that the list does not name is a new tab."""
    return LEVELS["app.chat"] if package.startswith("app.") and package not in LEVELS else LEVELS[package]


def test_every_import_names_a_lower_layer_or_its_own_package() -> None:
    upwards = []
    for module, file in MODULES.items():
        own = _package(module)
        for other in _ours(file):
            if _package(other) != own and _level(_package(other)) >= _level(own):
                upwards.append(f"{module} imports {other}")
    assert not upwards, "\n".join(sorted(upwards))


def test_no_files_import_each_other_in_a_circle() -> None:
    left = {module: _ours(file) for module, file in MODULES.items()}
    while ends := {each for each in left if not left[each] & left.keys() or each not in set().union(*left.values())}:
        left = {module: imported - ends for module, imported in left.items() if module not in ends}
    assert not left, "\n".join(f"{module} imports {', '.join(sorted(left[module]))}" for module in sorted(left))


def test_few_files_lie_beside_the_packages() -> None:
    beside = [module for module in MODULES if module.count(".") == 1 and MODULES[module].name != "__init__.py"]
    assert sum(module.startswith("core.") for module in beside) <= 6, beside
    assert sum(module.startswith("app.") for module in beside) <= 3, beside
