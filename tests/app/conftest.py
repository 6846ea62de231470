"""A page that is built but not served, on an empty workspace: its callbacks are called as Gradio would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.data.session import DataSession
from app.train.wire import TrainTab
from core.workspace import Workspace


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """The parts of a server that serves nobody."""
    return Context.open(Workspace.open(tmp_path / "workspace"))


@pytest.fixture
def train_tab(context: Context) -> TrainTab:
    """The Train tab, laid out."""
    tab = TrainTab(context, DataSession(context.helper.call))
    with gr.Blocks():
        tab.build()
    return tab


@pytest.fixture
def given(train_tab: TrainTab) -> dict[Any, Any]:
    """What stands on the Train tab's form when nobody has touched it, with a budget."""
    values = {component: component.value for component in train_tab.form.inputs()}
    return {**values, train_tab.form.fields["budget"]: 2.0, train_tab.layout.preview.pager.row: 1}
