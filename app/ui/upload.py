"""Files from the person's machine: the place to drop them, and their copy in the workspace. On Train and on Data."""

from pathlib import Path

import gradio as gr

from app.server.uploads import forget
from core.data.read import SUFFIXES
from core.data.store import keep_several
from core.errors import DataError
from core.workspace import Workspace


def drop_area() -> gr.File:
    """Where files are dropped or chosen: one or several, of every kind that can be read."""
    return gr.File(
        label="Your own files",
        show_label=False,
        file_count="multiple",
        file_types=list(SUFFIXES),
        height=64,
        elem_classes="nb-drop",
    )


def keep_files(workspace: Workspace, paths: list[str] | None) -> str:
    """Copy uploaded files into the workspace, several as one dataset; returns its path. Raises DataError."""
    if not paths:
        raise DataError("No file was received. Choose one, or drop it here again.")
    kept = keep_several(workspace, [(Path(path), Path(path).name) for path in paths])
    forget(paths)
    return str(kept.path)
