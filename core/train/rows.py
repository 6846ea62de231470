"""The rows of a run: read, rendered and split; the events say what was dropped or cut."""

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from core.data.cache import PreparedCache
from core.data.prepared import prepare_data
from core.data.rendering.render import PickedRows, RenderedSet
from core.data.split import split_rows
from core.errors import DataError
from core.model.vocabulary import unknown_token
from core.recipe import Recipe
from core.runs.store import Run
from core.workspace import read_json, write_json

DROPPED_SHOWN = 20


@dataclass(frozen=True)
class Rows:
    """What is trained on, what is held out, and the prompts that are answered at each evaluation."""

    train: PickedRows
    held_out: PickedRows
    prompts: list[str]
    counts: dict[str, int]


def prepare_rows(run: Run, recipe: Recipe, tokenizer: Any, embedding_rows: int | None = None) -> Rows:
    """Read, render and split the run's data. Raises DataError: no row is left, or an id is beyond `embedding_rows`."""
    run.write_status(message="Reading the data.")
    file, data = run.dataset_file(), recipe.data
    cache = PreparedCache.beside(file)
    prepared = prepare_data(file, data, tokenizer, cache, lambda message: run.write_status(message=message))
    rendered = prepared.rendered
    for finding in prepared.findings:
        run.event("data", finding)
    if not rendered.usable:
        first = rendered.dropped[0]
        raise DataError(f"{file.name}: no row is left to train on. Row {first.row}: {first.reason}.")
    _refuse_beyond(rendered, tokenizer, embedding_rows, file.name)
    _report(run, recipe, rendered)
    if prepared.seconds is not None:
        run.event("data", f"It was prepared earlier, and read in {prepared.seconds:.1f} s.")
    train, held = split_rows(prepared.keys, prepared.named, data, recipe.train.seed)
    counts = {
        "rows": rendered.rows,
        "usable": len(rendered.usable),
        "dropped": len(rendered.dropped),
        "truncated": rendered.truncated,
    }
    _write_held_out(run, rendered, train, held)
    asked = (prepared.questions[index] for index in held)  # for a recipe that names no prompts
    prompts = recipe.evaluation.prompts or list(islice(dict.fromkeys(filter(None, asked)), 3))
    return Rows(PickedRows(rendered.usable, train), PickedRows(rendered.usable, held), prompts, counts)


def _write_held_out(run: Run, rendered: RenderedSet, train: list[int], held: list[int]) -> None:
    """Write held_out.json: which rows are held out, by their numbers in the file, and a hash of all rows as used.

    The rows are there to be measured again. The hash is for a resume: an update of Nibble may render or split the same
    file differently, which would go unnoticed.
    """
    file, usable = run.dir / "held_out.json", rendered.usable
    digest = hashlib.sha256()
    for values in (usable.ids, usable.trained, usable.starts, train, held):
        digest.update(np.ascontiguousarray(values))
    prepared = digest.hexdigest()
    before = read_json(file)
    if isinstance(before, dict) and before.get("prepared", prepared) != prepared:
        run.event(
            "warning",
            "The rows are rendered or split differently from when this run began, for example after an update. The "
            "run continues, but not exactly as it would have. For an exact result, resume it with the version that "
            "began it, or start a new run.",
        )
    write_json(file, {"rows": sorted({int(usable.rows[index]) for index in held}), "prepared": prepared})


def _refuse_beyond(rendered: RenderedSet, tokenizer: Any, rows: int | None, name: str) -> None:
    usable = rendered.usable
    ids = np.asarray(usable.ids)
    if rows is None or not (ids >= rows).any():
        return
    place = int((ids >= rows).argmax())
    index = int(np.searchsorted(np.asarray(usable.starts), place, side="right")) - 1
    raise DataError(
        f"{name}, row {usable.rows[index]:,}: {unknown_token(int(ids[place]), tokenizer, rows)}, so it cannot be "
        "trained on. Remove that token from the data, or choose the model that this tokenizer was made for."
    )


def _report(run: Run, recipe: Recipe, rendered: RenderedSet) -> None:
    tokens = rendered.usable.tokens
    run.event(
        "data",
        f"{rendered.rows:,} rows: {len(rendered.usable):,} used, {len(rendered.dropped):,} dropped, "
        f"{rendered.truncated:,} cut to {recipe.data.max_length:,} tokens; {tokens:,} tokens in all.",
    )
    for drop in rendered.dropped[:DROPPED_SHOWN]:
        run.event("dropped", f"Row {drop.row} is not used: {drop.reason}.")
    if len(rendered.dropped) > DROPPED_SHOWN:
        run.event("dropped", f"And {len(rendered.dropped) - DROPPED_SHOWN:,} more rows, for similar reasons.")
