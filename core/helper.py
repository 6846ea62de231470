"""The warm helper: previews and checks for the server, in a process that may import torch. Both ends of it.

python -m core.helper      (started by `Helper`, speaks JSON lines)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.child import Answer, Child, Request, serve
from core.errors import BudgetError, DataError, ModelError, NibbleError, RecipeError
from core.recipe import Recipe, make_recipe
from core.workspace import Workspace

IDLE_SECONDS = 15 * 60


class Helper:
    """The server's end: `warm()` when the page is opened, then `call(...)`."""

    def __init__(self, workspace: Workspace) -> None:
        self._child = Child("core.helper", workspace.state / "helper.log", "The helper")

    def warm(self) -> None:
        """Start the helper, whose imports take 7 to 9 seconds; returns at once."""
        self._child.start()

    def call(self, op: str, **arguments: Any) -> Answer:
        """Ask for `preview` or `check`. Blocks until it is there. Raises NibbleError with one clear sentence."""
        *_, answer = self._child.ask({"op": op, **arguments})
        return answer

    def close(self) -> None:
        """End the helper."""
        self._child.close()


def _handle(request: Request) -> Iterator[Answer]:
    recipe = make_recipe(request["recipe"])
    if request["op"] == "preview":
        yield {**_preview(recipe, int(request.get("row", 1))), "done": True}
    elif request["op"] == "check":
        yield {**_check(recipe), "done": True}
    else:
        raise NibbleError(f"The helper knows no {request['op']!r}.")


def _preview(recipe: Recipe, row: int) -> Answer:
    """The dataset's counts, and one row as the model will see it."""
    from core.data.examples import show_row, summary

    tokenizer = _tokenizer(recipe.model)
    conversations, rendered = _rendered(recipe)
    shown = show_row(tokenizer, conversations, row, recipe.data.max_length)
    return {**summary(rendered, conversations), **shown, "max_length": recipe.data.max_length}


def _check(recipe: Recipe) -> Answer:
    """Whether the recipe can start, each refusal with where it belongs on the screen."""
    from core.budget import read_budget
    from core.data.examples import summary
    from core.hardware import compute_dtype, cuda_capability, device
    from core.launching import refuse_length
    from core.models import find_model
    from core.train.batches import split, steps_for

    errors: list[dict[str, str]] = []
    answer: Answer = {"errors": errors}
    chosen = device()
    dtype, because = compute_dtype(chosen.kind, cuda_capability(chosen.index) if chosen.kind == "cuda" else None)
    answer |= {"compute_dtype": dtype, "because": because}
    try:
        found = find_model(recipe.model)
        answer["model"] = {"label": found.label, "parameters": found.parameters}
        refuse_length(recipe, found)
        budget = read_budget(recipe, found, chosen)
        answer |= {
            "budget_bytes": budget.bytes,
            "budget_read": budget.read_as,
            "floor_bytes": budget.floor_bytes,
        }
        conversations, rendered = _rendered(recipe)
        answer["data"] = summary(rendered, conversations)
        rows, _ = split(len(rendered.usable), recipe.data.eval_fraction, recipe.data.eval_max_rows, recipe.train.seed)
        rules = recipe.train
        answer["steps"] = rules.max_steps or steps_for(len(rows), rules.effective_batch, rules.epochs or 1)
    except NibbleError as error:
        errors.append({"where": _where(error), "message": str(error)})
    return {**answer, "ok": not errors}


def _where(error: NibbleError) -> str:
    places = {ModelError: "model", DataError: "data", BudgetError: "budget", RecipeError: "recipe"}
    return places.get(type(error), "recipe")


@lru_cache(maxsize=4)
def _tokenizer(model: str) -> Any:
    from core.build import load_tokenizer
    from core.data.render import prepare_tokenizer
    from core.models import find_model

    tokenizer = load_tokenizer(find_model(model))
    prepare_tokenizer(tokenizer)
    return tokenizer


def _rendered(recipe: Recipe) -> tuple[Any, Any]:
    from core.data.keep import find_dataset

    file = find_dataset(recipe.data.path)
    data = recipe.data
    return _render_file(recipe.model, str(file), file.stat().st_mtime_ns, data.format, data.max_length)


@lru_cache(maxsize=4)
def _render_file(model: str, path: str, changed: int, format: str, max_length: int) -> tuple[Any, Any]:
    """A dataset rendered; kept while its file, the model and the length stay the same."""
    from core.data.formats import recognise
    from core.data.read import read_rows
    from core.data.render import render_all

    file = Path(path)
    conversations = recognise(read_rows(file), format, file.name)
    return conversations, render_all(_tokenizer(model), conversations, max_length)


class _Idle:
    """Ends the process when nothing was asked for a while: the memory is the person's."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def touch(self, request: Request) -> bool:
        self.last = time.monotonic()
        return False

    def _watch(self) -> None:
        while time.monotonic() - self.last < IDLE_SECONDS:
            time.sleep(5)
        os._exit(0)


if __name__ == "__main__":
    idle = _Idle()
    threading.Thread(target=lambda: __import__("core.build"), daemon=True).start()
    raise SystemExit(serve(_handle, idle.touch))
