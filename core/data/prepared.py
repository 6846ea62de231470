"""A dataset made ready to train on: read, rendered, and what else a run asks of it; kept, so that it is done once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from core.data.cache import PreparedCache, sha256_of
from core.data.conversation import Conversation, Dropped
from core.data.dataset import load
from core.data.rendering.render import RenderedRows, RenderedSet, render_all
from core.data.rendering.template import Template
from core.data.split import keys_for_rows
from core.settings import DataSettings

# What was made in less is made anew each time: nobody waits for it.
KEPT_FROM_SECONDS = 1.0
LONGEST_QUESTION = 200
# Settings that name the data, whose content counts, or come after rendering.
_NOT_IN_KEY = {"path", "eval_fraction", "eval_max_rows"}
_ABOUT = b"nibble"


@dataclass(frozen=True)
class Prepared:
    """A dataset's rendered rows, and what is told of its file.

    For each of `rendered.usable` its conversation's key (core/data/split.py), whether the data itself holds it out
    (`named`), and its first question, where that is short. `seconds` is how long it took to read it back; None where
    it was made now.
    """

    rendered: RenderedSet
    findings: list[str]
    keys: Sequence[int]
    named: Sequence[bool]
    questions: Sequence[str | None]
    seconds: float | None = None


def prepare_data(
    file: Path,
    settings: DataSettings,
    tokenizer: Any,
    pantry: PreparedCache | None,
    say: Callable[[str], None] = lambda message: None,
) -> Prepared:
    """The dataset at `file` ready for `tokenizer`: from `pantry`, if it was made before; else made, and kept there.

    `tokenizer` gets the template of the settings. Raises DataError as `load` does.
    """
    started = time.monotonic()
    Template(tokenizer, settings)
    key = key_of(file, settings, tokenizer) if pantry is not None else None
    if pantry is not None and key is not None:
        batch = pantry.take(key)
        if batch is not None:
            return _unpack(batch, started)
    made = _make(file, settings, tokenizer, say)
    slow = time.monotonic() - started >= KEPT_FROM_SECONDS
    if pantry is not None and key is not None and slow and len(made.rendered.usable):
        _keep(pantry, key, made)
    return made


def key_of(file: Path, settings: DataSettings, tokenizer: Any) -> str | None:
    """Of all that the rendered rows depend on; None where that cannot be said, such as of a slow tokenizer.

    That is the data's content, the settings, the tokenizer with its template, the day where the template writes it,
    and the code that does the work.
    """
    import tokenizers
    import transformers

    try:
        content, spelt = _hash_of(file), tokenizer.backend_tokenizer.to_str()
    except Exception:  # a file that cannot be read; of a tokenizer with parts of its own the library says no more
        return None
    template = str(tokenizer.chat_template)
    parts = [
        content,
        settings.model_dump(exclude=_NOT_IN_KEY),
        hashlib.sha256(spelt.encode()).hexdigest(),
        [type(tokenizer).__name__, template, str(tokenizer.special_tokens_map)],
        date.today().isoformat() if "strftime_now" in template else "",
        [tokenizers.__version__, transformers.__version__, _hash_of(Path(__file__).parent, "*.py")],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _hash_of(path: Path, pattern: str = "*") -> str:
    """Of the names and contents of a file, or of all files below a folder."""
    files = sorted(each for each in path.rglob(pattern) if each.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for each in files:
        digest.update(f"{each.relative_to(path.parent).as_posix()}\n{sha256_of(each)}\n".encode())
    return digest.hexdigest()


def _make(file: Path, settings: DataSettings, tokenizer: Any, say: Callable[[str], None]) -> Prepared:
    say("Reading the data.")
    conversations = load(file, settings)
    say("Turning the data into tokens.")
    rendered = render_all(tokenizer, conversations, settings)
    rows = rendered.usable.rows
    problem_of = {each.row: _question(each) for each in conversations.usable}
    return Prepared(
        rendered,
        [f"{finding.message} {finding.mend}".strip() for finding in conversations.findings],
        keys_for_rows(rows, conversations.usable),
        conversations.held_out.holds(rows).tolist(),
        [problem_of[row] for row in rows],
    )


def _question(conversation: Conversation) -> str | None:
    asked = next((message["content"] for message in conversation.messages if message["role"] == "user"), "")
    return asked if 0 < len(asked) <= LONGEST_QUESTION else None


def _keep(pantry: PreparedCache, key: str, made: Prepared) -> None:
    import pyarrow as pa

    def lists(values: Sequence[Any]) -> Any:
        return pa.LargeListArray.from_arrays(pa.array(np.asarray(usable.starts)), pa.array(np.asarray(values)))

    usable = made.rendered.usable
    weights = [usable.weights.get(index) for index in range(len(usable))]
    columns = {
        "row": pa.array(np.asarray(usable.rows)),
        "full_length": pa.array(np.asarray(usable.full_lengths)),
        "ids": lists(usable.ids),
        "trained": lists(usable.trained),
        "weights": pa.array(weights, pa.list_(pa.float64())),
        "key": pa.array(made.keys, pa.int64()),
        "named": pa.array(made.named, pa.bool_()),
        "question": pa.array(made.questions, pa.string()),
    }
    about = {
        "rows": made.rendered.rows,
        "dropped": [[drop.row, drop.reason] for drop in made.rendered.dropped],
        "findings": made.findings,
    }
    batch = pa.RecordBatch.from_pydict(columns)
    pantry.put(key, batch.replace_schema_metadata({_ABOUT: json.dumps(about)}))


def _unpack(batch: Any, started: float) -> Prepared:
    about = json.loads(batch.schema.metadata[_ABOUT])
    weights = batch.column("weights")
    weighted = np.flatnonzero(weights.is_valid().to_numpy(zero_copy_only=False)).tolist()
    usable = RenderedRows.over(
        rows=_numbers(batch.column("row")),
        full_lengths=_numbers(batch.column("full_length")),
        starts=_numbers(batch.column("ids").offsets),
        ids=_numbers(batch.column("ids").values),
        trained=_numbers(batch.column("trained").values),
        weights={index: weights[index].as_py() for index in weighted},
    )
    dropped = [Dropped(row, reason) for row, reason in about["dropped"]]
    return Prepared(
        RenderedSet(about["rows"], usable, dropped),
        about["findings"],
        _numbers(batch.column("key")),
        batch.column("named").to_pylist(),
        batch.column("question").to_pylist(),
        time.monotonic() - started,
    )


def _numbers(column: Any) -> Any:
    """A column's whole numbers without a copy; one of them is an int as any other."""
    return memoryview(column.to_numpy())
