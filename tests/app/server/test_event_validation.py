"""What a page has from us it may send back: no menu is filled with what the server would then refuse."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from app.arena import layout as arena_layout
from app.chat import layout as chat_layout
from app.context import Context
from app.data import layout as data_layout
from app.export import layout as export_layout
from app.server.event_validation import fault
from app.train import layout as train_layout
from core.recipe import make_recipe
from core.runs.create import create_run

MENUS = (gr.Dropdown, gr.Radio, gr.CheckboxGroup)


def _filled(context: Context) -> dict[Any, Any]:
    """All that is set when a page and its tabs are opened."""
    with gr.Blocks():
        parts = {tab: tab.build() for tab in (train_layout, chat_layout, arena_layout, export_layout)}
        looked_at = data_layout.build()
    updates: dict[Any, Any] = {}
    for tab, part in parts.items():
        updates |= tab.fill(part, context)  # type: ignore[attr-defined]
    updates |= train_layout.fill_starts(parts[train_layout], context)
    given = {component: component.value for component in parts[train_layout].form.inputs()}
    return updates | data_layout.fill(looked_at, parts[train_layout].form, context, given)


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
    with gr.Blocks():
        tab = export_layout.build()
    filled = export_layout.fill(tab, context)
    assert "Nothing to export yet" in filled[tab.empty]
    given = {component: getattr(filled.get(component), "value", component.value) for component in tab.inputs()}
    assert not any(fault(component, given[component]) for component in (tab.run, tab.part, tab.to))
    assert "Choose a run" in export_layout.ExportEvents(tab, context).make(given)[tab.said]
