"""The quantised copies of base models that are kept on the disk: listed, read whole, deleted."""

from collections.abc import Callable, Iterator
from functools import partial

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.ui import html
from app.ui.html import empty, text
from app.ui.updates import ONCE, Updates
from core.basemodel.stores import StoreInfo, delete_store, list_stores, stored, verify_store
from core.errors import NibbleError
from core.sizes import show_bytes


class StoreParts:
    """The components of the section."""

    def __init__(self) -> None:
        gr.HTML("<h3>Quantised copies of models</h3>", elem_classes="nb-slot")
        self.table = gr.HTML(elem_classes="nb-slot")
        self.chosen = gr.Dropdown(label="Copy", choices=[], value=None, visible=False)
        with gr.Row(elem_classes="nb-actions"):
            self.verify = gr.Button("Verify", visible=False)
            self.delete = gr.Button("Delete", visible=False)
        self.message = gr.HTML(elem_classes="nb-slot")

    def shown(self) -> list[Component]:
        """What `fill` sets."""
        return [self.table, self.chosen, self.verify, self.delete, self.message]


def wire(parts: StoreParts, context: Context) -> None:
    """Attach the events."""
    parts.verify.click(partial(verify, context), parts.chosen, parts.message, **ONCE)
    deleted = partial(_delete, parts, context)
    parts.delete.click(deleted, parts.chosen, parts.shown(), **ONCE)


def fill(parts: StoreParts, context: Context, message: str = "") -> Updates:
    """What is on the disk now."""
    found = list_stores(context.workspace.quantised)
    choices = [(_name(each), each.key) for each in found]
    there = bool(found)
    return {
        parts.table: table(found),
        parts.chosen: gr.Dropdown(choices=choices, value=found[0].key if there else None, visible=there),
        parts.verify: gr.Button(visible=there),
        parts.delete: gr.Button(visible=there),
        parts.message: message,
    }


def table(found: list[StoreInfo]) -> str:
    """The list, as HTML."""
    if not found:
        return empty(
            "None yet",
            "The first load of a model of half a gigabyte or more keeps it as it was quantised; later loads take a "
            "fraction of the time.",
        )
    rows = "".join(
        f'<tr><td>{text(each.label)}</td><td>{text(_bits(each))}</td><td class="nb-num">{show_bytes(each.bytes)}</td>'
        f"<td>{text(_original(each))}</td></tr>"
        for each in found
    )
    total = show_bytes(sum(each.bytes for each in found))
    return (
        f'<p class="nb-muted">{total} in total. A copy that is deleted is made again by the next load of its model.</p>'
        f'<table class="nb-table nb-disk">{rows}</table>'
    )


def _name(each: StoreInfo) -> str:
    return f"{each.label}, {_bits(each)}, {show_bytes(each.bytes)}"


def _bits(each: StoreInfo) -> str:
    return f"{each.bits} bits" if each.whole else "not whole"


def _original(each: StoreInfo) -> str:
    if not each.whole:
        return ""
    return "original files here" if each.original else "original files gone"


def verify(context: Context, key: str | None) -> Iterator[str]:
    """Read the chosen copy whole; what came of it."""
    yield html.busy("Reading all of it.")
    yield _said(lambda: _verified(context, key))


def _verified(context: Context, key: str | None) -> str:
    store = stored(context.workspace.quantised, key or "")
    verify_store(store)
    return f"The quantised copy of {store.label} is what was written."


def _delete(parts: StoreParts, context: Context, key: str | None) -> Updates:
    """Delete the chosen copy."""
    return fill(parts, context, _said(lambda: _deleted(context, key)))


def _deleted(context: Context, key: str | None) -> str:
    return f"Deleted; {show_bytes(delete_store(context.workspace.quantised, key or ''))} are free again."


def _said(do: Callable[[], str]) -> str:
    try:
        return html.note_box(do())
    except NibbleError as error:
        return html.error_box(str(error))
