"""The System tab lists quantised copies of models, reads one whole, and deletes one."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from app.context import Context
from app.system import stores
from core.basemodel.stores import WEIGHTS, StoreInfo, list_stores


@pytest.fixture
def section() -> stores.StoreParts:
    with gr.Blocks():
        return stores.StoreParts()


def test_without_copies_there_is_nothing_to_press(context: Context, section: stores.StoreParts) -> None:
    shown = stores.fill(section, context)
    assert "None yet" in shown[section.table]
    assert not any(shown[each].visible for each in (section.chosen, section.verify, section.delete))


def test_what_a_crash_left_is_listed_and_deleted(context: Context, section: stores.StoreParts) -> None:
    left = context.workspace.quantised / ".making-0123"
    left.mkdir()
    (left / WEIGHTS).write_bytes(bytes(5_000_000))
    shown = stores.fill(section, context)
    assert "not whole" in shown[section.table] and "5.0 MB" in shown[section.table]
    assert shown[section.chosen].value == "0123" and shown[section.delete].visible
    *_, said = stores.verify(context, "0123")
    assert "There is no quantised copy" in said
    shown = stores._delete(section, context, "0123")
    assert "Deleted; 5.0 MB are free again" in shown[section.message] and "None yet" in shown[section.table]
    assert list_stores(context.workspace.quantised) == []


@pytest.mark.parametrize("key", [None, "", "..", "../runs"])
def test_nothing_else_can_be_deleted(key: str | None, context: Context, section: stores.StoreParts) -> None:
    assert "nb-error" in stores._delete(section, context, key)[section.message]
    assert "nb-error" in list(stores.verify(context, key))[-1]
    assert Path(context.workspace.runs).is_dir()


def test_names_are_escaped() -> None:
    row = StoreInfo("0123", "<b>evil", 4, 5_600_000_000, "", True, False)
    assert "&lt;b&gt;evil" in stores.table([row]) and "<b>evil" not in stores.table([row])
    assert "original files gone" in stores.table([row])
