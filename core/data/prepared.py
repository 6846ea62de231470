"""A dataset made ready to train on: read, rendered, and what else a run asks of it; kept, so that it is done once."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.data.cache import PreparedCache
from core.data.changes import content_hash, sha256_of_all
from core.data.conversation import Conversation, Dropped
from core.data.dataset import Loaded, load
from core.data.rendering.render import RenderedRows, RenderedSet, render_all
from core.data.rendering.template import Template
from core.data.split import keys_for_rows
from core.settings import DataSettings

# What was made in less is made anew each time: nobody waits for it.
KEPT_FROM_SECONDS = 1.0
LONGEST_QUESTION = 200
# What decides how rows are read and rendered, below the folder `core`.
_DECIDING = ("data", "text", "untrusted")
# Settings that name the data, whose content counts, or come after rendering.
_NOT_IN_KEY = {"path", "eval_fraction", "eval_max_rows"}
_ABOUT = b"nibble"


@dataclass(frozen=True)
class Prepared:
    """A dataset's rendered rows, and what a run is told about them.

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
    kept: PreparedCache | None,
    say: Callable[[str], None] = lambda message: None,
) -> Prepared:
    """The dataset at `file` ready for `tokenizer`: from `kept`, if it was made before; else made, and kept there.

    `tokenizer` gets the template of the settings. Raises DataError as `load` does.
    """
    started = time.monotonic()
    Template(tokenizer, settings)
    key = key_of(file, settings, tokenizer) if kept is not None else None
    batch = kept.take(key) if kept is not None and key is not None else None
    if batch is not None:
        return _unpack(batch, started)
    say("Reading the data.")
    loaded = load(file, settings)
    say("Tokenising the data.")
    made = prepared_from(loaded, render_all(tokenizer, loaded, settings))
    if kept is not None and key is not None:
        keep(kept, key, made, time.monotonic() - started)
    return made


def key_of(file: Path, settings: DataSettings, tokenizer: Any) -> str | None:
    """Of all that the rendered rows depend on; None where that cannot be said, such as of a slow tokenizer.

    That is the data's content, the settings, the tokenizer with its template, the day where the template writes it,
    and the code that does the work.
    """
    import tokenizers
    import transformers

    try:
        content, spelt = [file.name, content_hash(file)], tokenizer.backend_tokenizer.to_str()
    except Exception:  # a file that cannot be read; of a tokenizer with parts of its own the library says no more
        return None
    template = str(tokenizer.chat_template)
    parts = [
        content,
        settings.model_dump(exclude=_NOT_IN_KEY),
        hashlib.sha256(spelt.encode()).hexdigest(),
        [type(tokenizer).__name__, template, str(tokenizer.special_tokens_map)],
        date.today().isoformat() if "strftime_now" in template else "",
        [tokenizers.__version__, transformers.__version__, _code_hash()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@cache
def _code_hash() -> str:
    """Of the code, and of the data that it reads, by which rows become tokens."""
    core = Path(__file__).parent.parent
    files = [each for name in _DECIDING for each in (core / name).rglob("*") if each.is_file()]
    return sha256_of_all((each, each.relative_to(core).as_posix()) for each in files if each.suffix != ".pyc")


def prepared_from(loaded: Loaded, rendered: RenderedSet) -> Prepared:
    """What a run asks of a dataset, once it is read and rendered."""
    rows = rendered.usable.rows
    question_of = {each.row: _question(each) for each in loaded.usable}
    return Prepared(
        rendered,
        [f"{finding.message} {finding.mend}".strip() for finding in loaded.findings],
        keys_for_rows(rows, loaded.usable),
        loaded.held_out.holds(rows).tolist(),
        [question_of[row] for row in rows],
    )


def _question(conversation: Conversation) -> str | None:
    asked = next((message["content"] for message in conversation.messages if message["role"] == "user"), "")
    return asked if 0 < len(asked) <= LONGEST_QUESTION else None


def keep(kept: PreparedCache, key: str, made: Prepared, seconds: float) -> None:
    """Keep under `key` what took so many seconds to make; nothing where that was little, or no row is usable."""
    import pyarrow as pa

    if seconds < KEPT_FROM_SECONDS or not made.rendered.usable:
        return

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
    kept.put(key, batch.replace_schema_metadata({_ABOUT: json.dumps(about)}))


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
