"""A page that is opened while something trains says so before it has asked for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from app.context import Context
from app.page.build import build_page, open_tabs
from app.server.asgi import Prefilled
from app.server.event_validation import CheckedBlocks
from core.recipe import make_recipe
from core.runs.create import create_run
from core.workspace import Workspace

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedBlocks]:
    """The whole page, built once, on a workspace without runs; its context is its tests' to read."""
    context = Context.open(Workspace.open(tmp_path_factory.mktemp("workspace")))
    built = build_page(context, open_tabs(context))
    built.config = built.get_config_file()
    built.context = context  # type: ignore[attr-defined]
    yield built


def _ask(blocks: CheckedBlocks, path: str = "/config", method: str = "GET") -> dict[str, object]:
    """What the page's components show once a page was asked for: all text, and the side of the Train tab."""

    async def nothing(*_: object) -> None:
        pass

    layer = Prefilled(nothing, lambda: blocks)  # type: ignore[arg-type]
    asyncio.run(layer({"type": "http", "method": method, "path": path}, nothing, nothing))  # type: ignore[arg-type]
    shown = "".join(str(part["props"].get("value")) for part in blocks.config["components"] if part["type"] == "html")
    sides = [part["props"].get("selected") for part in blocks.config["components"] if part["type"] == "tabs"]
    return {"text": shown, "sides": sides}


def test_a_page_shows_the_run_that_is_at_work_from_the_start(
    blocks: CheckedBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: Context = blocks.context  # type: ignore[attr-defined]
    assert "No run yet" in str(_ask(blocks)["text"])
    run = create_run(context.workspace, make_recipe({"name": HOSTILE}), {"file": "x", "sha256": "y", "name": "z"})
    run.write_status(state="training", step=5, total=10)
    monkeypatch.setattr(type(context.supervisor), "current", lambda _: run)
    asked = _ask(blocks)
    assert "5 of 10" in str(asked["text"]) and "run" in asked["sides"]  # type: ignore[operator]
    assert "&lt;script&gt;" in str(asked["text"]) and "<script" not in str(asked["text"])
    run.write_status(state="training", step=6, total=10)
    assert "6 of 10" in str(_ask(blocks)["text"])
    monkeypatch.undo()
    assert "run" not in _ask(blocks)["sides"], "the form is in sight where nothing is at work"


def test_only_a_page_has_the_run_read(blocks: CheckedBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(blocks, "in_sight", lambda: read.append("read") or {})
    for path, method in (("/gradio_api/info", "GET"), ("/", "GET"), ("/config", "HEAD"), ("/assets/index.js", "GET")):
        _ask(blocks, path, method)
    assert read == []
    _ask(blocks)
    assert read == ["read"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("damaged"), KeyError("step")])
def test_what_cannot_be_read_costs_no_page(
    blocks: CheckedBlocks, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = _ask(blocks)

    def refuse() -> dict[int, dict[str, object]]:
        raise error

    monkeypatch.setattr(blocks, "in_sight", refuse)
    assert _ask(blocks) == before
