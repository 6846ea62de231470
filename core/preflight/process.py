"""The warm helper: previews and checks for the server in a process that may import torch. Both ends of it.

python -m core.preflight.process      (started by `Helper`, speaks JSON lines)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from core.basemodel.code_consent import CodeNotAgreed, trust_only
from core.errors import BudgetError, DataError, ModelError, NibbleError, RecipeError
from core.recipe import Recipe, make_recipe
from core.system.child_process import Answer, Child, Request, serve
from core.workspace import Workspace

if TYPE_CHECKING:
    from core.preflight.dataset_session import DatasetSession

IDLE_SECONDS = 15 * 60
# How long a check waits for the data to be read; pages stay responsive meanwhile.
PATIENCE_SECONDS = 3.0


class Helper:
    """The server's end: `warm()` when the page is opened, then `call(...)`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._child = Child("core.preflight.process", workspace.state / "helper.log", "The helper")

    def warm(self) -> None:
        """Start the helper, whose imports take 7 to 9 seconds; returns at once."""
        self._child.start()

    def call(self, op: str, **arguments: Any) -> Answer:
        """Ask for `dataset`, `preview`, `check` or `plan`, and wait. Raises NibbleError in one clear sentence."""
        *_, answer = self._child.ask({"op": op, "workspace": str(self._workspace.path), **arguments})
        return answer

    def close(self) -> None:
        """End the helper."""
        self._child.close()


class _Work:
    """What the helper does for the server: looks at data, checks what a run would meet."""

    def __init__(self) -> None:
        self._session: DatasetSession | None = None

    def handle(self, request: Request) -> Iterator[Answer]:
        """Answer one request: `dataset` (what the Data tab asks), `preview`, `check`, `plan`."""
        workspace = Workspace.open(request["workspace"])
        trust_only(workspace)
        if request["op"] == "dataset":
            yield {**self._on(workspace).answer(request), "done": True}
        elif request["op"] == "preview":
            yield {**self._preview(workspace, request["recipe"], int(request.get("row", 1))), "done": True}
        elif request["op"] == "check":
            _wait_for_imports()
            yield {**self._check(workspace, make_recipe(request["recipe"])), "done": True}
        elif request["op"] == "plan":
            _wait_for_imports()
            yield {**self._plan(workspace, make_recipe(request["recipe"])), "done": True}
        else:
            raise NibbleError(f"The helper knows no {request['op']!r}.")

    def _on(self, workspace: Workspace) -> DatasetSession:
        from core.preflight.dataset_session import DatasetSession

        if self._session is None:
            self._session = DatasetSession(workspace, _tokenizer)
        return self._session

    def _preview(self, workspace: Workspace, recipe: dict[str, Any], row: int) -> Answer:
        """One row as the model will see it, where its data is read by now; else how far that has come."""
        state = self._inspected(workspace, recipe, until=("tokens", "done", "failed"))
        if state["stage"] not in ("tokens", "done"):
            return {"waiting": state}
        found = self._on(workspace).row(row)
        return {**found, "max_length": state["max_length"]}

    def _check(self, workspace: Workspace, recipe: Recipe) -> Answer:
        """Whether the recipe can start, each refusal with where it belongs on the screen.

        `source` is where its data lies. Large data is still being read: then `data` says how far, and the run itself
        refuses what cannot be used.
        """
        from core.basemodel.find import find_model
        from core.data.batches import steps_for
        from core.data.locate import locate
        from core.launch.start_from import take_over
        from core.launch.submit import refuse
        from core.model.fit import refuse_misfit
        from core.system.compute_dtype import compute_dtype
        from core.system.hardware import device
        from core.train.advice import advice

        errors: list[dict[str, str]] = []
        answer: Answer = {"errors": errors}
        chosen = device()
        answer["compute_dtype"], answer["because"] = compute_dtype(chosen)
        try:
            recipe, _ = take_over(recipe, workspace)
            found = find_model(recipe.model)
            answer["compute_dtype"], answer["because"] = compute_dtype(chosen, found.model_type)
            shown = ("label", "parameters", "download_bytes")
            answer["model"] = {name: getattr(found, name) for name in shown}
            answer["advice"] = advice(recipe, found, chosen.kind)
            budget = refuse(recipe, found, workspace)
            assert budget is not None  # there is one machine
            refuse_misfit(found)
            answer |= {"budget_bytes": budget.bytes, "budget_read": budget.read_as, "floor_bytes": budget.floor_bytes}
            answer["source"] = str(locate(recipe.data, workspace))
            answer["data"] = state = self._inspected(workspace, recipe.model_dump())
            if state["stage"] == "failed":
                raise DataError(state["error"])
            if state["stage"] == "done":
                unusable = next((each for each in state["warnings"] if each["code"] == "no-embedding"), None)
                if unusable is not None:  # a run would refuse it once it has begun
                    raise DataError(f"{unusable['message']} {unusable['mend']}")
                rules = recipe.train
                rows = state["split"]["train"]
                answer["steps"] = rules.max_steps or steps_for(rows, rules.effective_batch, rules.epochs or 1)
        except NibbleError as error:
            errors.append({"where": _where(error), "message": str(error)})
            answer["needs_consent"] = isinstance(error, CodeNotAgreed)
        return {**answer, "ok": not errors}

    def _plan(self, workspace: Workspace, recipe: Recipe) -> Answer:
        """What the recipe will take on this machine, and how it would be run; `steps` where the data is counted."""
        from core.launch.start_from import take_over
        from core.memory.estimate import architecture_of, plan_for

        recipe, _ = take_over(recipe, workspace)
        architecture = architecture_of(recipe.model)
        units, because = None, ", because the model and its tokenizer are not downloaded"
        if architecture.local:
            state = self._inspected(workspace, recipe.model_dump())
            units = self._on(workspace).train_units()
            failed = state["stage"] == "failed"
            because = f" ({state['error']})" if failed else ", because tokens are still being counted"
        return plan_for(recipe, workspace, architecture, units, f"the lengths of the data{because}")

    def _inspected(
        self, workspace: Workspace, recipe: dict[str, Any], until: tuple[str, ...] = ("done", "failed")
    ) -> Answer:
        """The state of the recipe's dataset, after waiting a moment for one of the stages `until`."""
        session = self._on(workspace)
        state = session.open(recipe)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while state["stage"] not in until and time.monotonic() < deadline:
            time.sleep(0.05)
            state = session.state()
        return state


def _where(error: NibbleError) -> str:
    places = {DataError: "data", BudgetError: "budget", RecipeError: "recipe"}
    return "model" if isinstance(error, ModelError) else places.get(type(error), "recipe")


_imports = threading.Thread(target=lambda: __import__("core.memory.estimate"), name="imports", daemon=True)


def _wait_for_imports() -> None:
    """Wait for the imports of the helper's start: two threads importing transformers see half-made modules."""
    if _imports.is_alive():
        _imports.join()


@lru_cache(maxsize=4)
def _tokenizer(model: str) -> Any:
    _wait_for_imports()
    from core.basemodel.find import find_model
    from core.model.load import load_tokenizer

    return load_tokenizer(find_model(model))


class _Idle:
    """Ends the process when nothing was asked for a while, to free its memory."""

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
    _imports.start()
    raise SystemExit(serve(_Work().handle, idle.touch))
