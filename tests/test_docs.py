"""The pages name what there is: every path, link, message and name in them exists, and the written ones are current."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from core.basemodel.find import model_presets
from core.catalogue.facts import cards, model_facts
from core.catalogue.what_fits import what_fits
from core.cli.run import resume_arguments
from core.data.samples import samples
from core.recipe import Recipe, load_recipe, make_recipe, named_in_preset, recipe_presets
from core.runs.resume import MAY_CHANGE
from core.workspace import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
_PATH = re.compile(r"`((?:core|app|tests|docs|bench|presets)/[\w./-]*)`")
_MODULE = re.compile(r"`((?:core|app)(?:\.\w+)+)")
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")
_STOP = re.compile(r"^\| \d+ \| `([^`]+)` \| (\d+) \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [path for path in _PATH.findall(text) if not (ROOT / path).exists()] == []
    modules = [ROOT / name.replace(".", "/") for name in _MODULE.findall(text)]
    assert [each for each in modules if not each.is_dir() and not each.with_suffix(".py").exists()] == []
    assert [link for link in _LINK.findall(text) if not (page.parent / link).exists()] == []


def test_the_models_to_begin_with_fit_their_cards() -> None:
    """Each leaves room on the smallest such GeForce, and its figures are the catalogue's and the traced ones."""
    page = (ROOT / "docs" / "first-model.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+)[\w ]* GB \| `([^`]+)` \| (\d+) GB \| ([\d.]+) GiB \|", page, re.MULTILINE)
    assert len(rows) == 3
    for size, model, download, memory in rows:
        peak = what_fits().models[model].peaks["bfloat16"][1024]
        assert float(memory) == round(peak / 2**30, 1)
        assert float(download) == pytest.approx(model_facts()[model].parameters * 2e-9, abs=0.6)
        like = [card for card in cards().values() if "GeForce" in card.title and f"{size} GB" in card.title]
        smallest = min(card.memory_bytes for card in like)
        assert 1.07 * peak < 0.85 * smallest  # on Windows, with a screen


def test_the_walk_is_an_evening_long() -> None:
    """Its figures may be off by what a change or two make of them."""
    stops = _STOP.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    counted = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path, _ in stops}
    assert 2_500 < sum(counted.values()) < 3_500
    assert [path for path, lines in stops if abs(counted[path] - int(lines)) > 40] == []


def _script(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings", "commands"])
def test_a_page_is_what_its_script_writes(name: str) -> None:
    written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == _script(name).page(), f"run: python docs/{name}.py"


def test_every_command_has_its_section_and_every_variable_is_read() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = {line.split()[1] for line in written.splitlines() if line.startswith("## ")}
    listed = subprocess.run([sys.executable, "-m", "core.cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    commands = set(re.findall(r"^    ([a-z]+)(?:\s|$)", listed.stdout, re.MULTILINE))
    assert len(commands) > 15 and sections - commands == {"Environment"} and commands <= sections
    code = [file.read_text(encoding="utf-8") for file in [*ROOT.glob("*.py"), *ROOT.glob("core/**/*.py")]]
    for variable in set(_script("commands").VARIABLES) - {"HF_TOKEN"}:  # that one huggingface_hub reads
        assert any(variable in text for text in code), variable


def test_what_resume_may_change_is_in_its_help() -> None:
    parser = ArgumentParser()
    resume_arguments(parser)
    assert [key for key in MAY_CHANGE if key not in parser.format_help()] == []


def test_every_setting_and_every_name_has_one_row() -> None:
    """Counted in what pydantic and the folders of presets hold, each with a meaning of one sentence at least."""
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written.splitlines() if line[:3] == "| `"]
    settings = {row[0].strip("`"): row for row in rows if len(row) == 5 and row[4].endswith(".")}
    leaves = set(_leaves(Recipe().model_dump()))
    assert leaves <= set(settings) and all(row[2] and row[3] for row in settings.values())
    names = [row[0].strip("`") for row in rows]
    known = [*recipe_presets(), *model_presets(), *model_facts(), *cards(), *(sample.name for sample in samples())]
    assert sorted(set(names) - leaves) == sorted(set(known))


def test_defaults_on_the_page_of_settings_make_the_default_recipe() -> None:
    script = _script("settings")
    found = {key: value for key, value in _leaves(Recipe().model_dump()).items() if value not in (None, [], {})}
    assert make_recipe({key: _as_typed(script.shown(value)) for key, value in found.items()}) == Recipe()


def test_the_example_on_the_page_of_settings_is_a_recipe() -> None:
    words = shlex.split(_script("settings").EXAMPLE)
    changes = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    recipe = load_recipe(words[words.index("train") + 1], [*changes, "evaluation.prompts=['Who are you?', 'And?']"])
    assert recipe.model == "qwen3-4b" and recipe.evaluation.prompts == ["Who are you?", "And?"]


def test_the_recipe_that_trains_an_adapter_further_leaves_its_settings_open(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    file = tmp_path / "further.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    recipe = load_recipe(str(file))
    assert recipe.lora.model_fields_set == {"start_from"} and "model" not in recipe.model_fields_set
    assert all("lora.rank" in named_in_preset(name) for name in recipe_presets()), "as the page says"


def _leaves(values: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in values.items():
        inner = value if isinstance(value, dict) and key != "roles" else None
        found |= {f"{prefix}{key}": value} if inner is None else _leaves(inner, f"{prefix}{key}.")
    return found


def _as_typed(shown: str) -> object:
    return yaml.safe_load(shown.strip("`"))


def test_messages_of_the_install_are_quoted_as_they_are() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## When it does not work")[2]
    quoted = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")][1:]
    files = [ROOT / "launch.py", *(ROOT / "core" / "setup").glob("*.py")]
    messages = [text for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8")))]
    assert len(quoted) > 10
    assert [each for each in quoted if not any(each.strip("… ") in text for text in messages)] == []


def _texts(tree: ast.AST) -> Iterator[str]:
    """The texts in a module, with … for what is put into them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
