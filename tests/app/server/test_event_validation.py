"""What a page has from us it may send back: no menu is filled with what the server would then refuse."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.data.wire import DataTab
from app.export.wire import ExportTab
from app.page.build import open_tabs
from app.server.event_validation import fault
from app.train.wire import TrainTab
from core.recipe import make_recipe
from core.runs.create import create_run

MENUS = (gr.Dropdown, gr.Radio, gr.CheckboxGroup)


def _filled(context: Context) -> dict[Any, Any]:
    """All that is set when a page and its tabs are opened."""
    train, data, *others = tabs = open_tabs(context)
    assert isinstance(train, TrainTab) and isinstance(data, DataTab)
    updates: dict[Any, Any] = {}
    with gr.Blocks():
        for tab in tabs:
            tab.build()
            updates |= {**tab.fill(), **tab.fill_later()}
    (export,) = (tab for tab in others if isinstance(tab, ExportTab))
    given = {component: component.value for component in train.form.inputs()}
    return {**updates, **export.events.fill(), **data.open(train.form, given)}


@pytest.mark.parametrize("with_a_run", [False, True])
def test_what_is_filled_in_may_be_sent_back(context: Context, with_a_run: bool) -> None:
    if with_a_run:
        recipe = make_recipe({"name": "a", "model": "starter"})
        create_run(context.workspace, recipe, {"file": "x", "sha256": "", "name": "x"}, "finished").adapter.mkdir()
    filled = _filled(context)
    menus = [(component, update) for component, update in filled.items() if isinstance(update, MENUS)]
    assert len(menus) > 5
    for component, update in menus:
        shown = type(component)(**{**component.constructor_args, **update.constructor_args})
        assert not fault(shown, shown.value, component.value is None), (component.label, shown.value)


def test_a_new_workspace_says_what_to_do_when_export_is_pressed(context: Context) -> None:
    export = ExportTab(context)
    with gr.Blocks():
        export.build()
    tab, filled = export.layout, export.events.fill()
    assert "Nothing to export yet" in filled[tab.empty]
    given = {component: getattr(filled.get(component), "value", component.value) for component in tab.inputs()}
    assert not any(fault(component, given[component]) for component in (tab.run, tab.part, tab.to))
    assert "Choose a run" in export.events.make(given)[tab.message]
