"""Parquet and Arrow: rows taken from columns, a batch at a time."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from core.data.conversation import Row, Unreadable
from core.data.read.blob import BLOCK, Blob, Progress
from core.data.read.mojibake import any_garbled
from core.data.read.notes import Notes
from core.errors import DataError

# In the metadata of a file that was fetched from the Hub: the names of the splits that were not.
LEFT_ON_HUB = b"nibble.splits_left_on_hub"
_BATCH_BYTES = 16 * 2**20
BATCH_ROWS = 2000


def read_parquet(blob: Blob, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
    """The rows of a Parquet file. Raises DataError where it is damaged or two columns have one name."""
    import pyarrow.parquet as parquet

    with _file(blob) as file, _readable_errors(blob.name, "Parquet"):
        opened = parquet.ParquetFile(file)
        left = (opened.schema_arrow.metadata or {}).get(LEFT_ON_HUB)
        if left:
            notes.on_reading(
                "splits-not-fetched",
                "note",
                f"Other splits of the dataset were not downloaded and are not used: {left.decode()}.",
                "To train on one of them, name it in data.split.",
            )
        _refuse_twins(blob.name, opened.schema_arrow.names)
        total = opened.metadata.num_rows
        size = sum(opened.metadata.row_group(group).total_byte_size for group in range(opened.num_row_groups))
        rows = min(BATCH_ROWS, max(1, _BATCH_BYTES * total // max(size, 1)))
        done = 0
        for batch in opened.iter_batches(batch_size=rows):
            yield from _rows(batch, notes)
            done += batch.num_rows
            progress(blob.size * done // max(total, 1))


def read_arrow(blob: Blob, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
    """The rows of an Arrow IPC file or stream. Raises DataError where it is damaged or two columns have one name."""
    import pyarrow

    with _file(blob) as file, _readable_errors(blob.name, "Arrow"):
        of_file = file.read(6) == b"ARROW1"
        file.seek(0)
        source = pyarrow.OSFile(str(blob.path)) if blob.path else file
        opened = pyarrow.ipc.open_file(source) if of_file else pyarrow.ipc.open_stream(source)
        _refuse_twins(blob.name, opened.schema.names)
        batches = map(opened.get_batch, range(opened.num_record_batches)) if of_file else opened
        for batch in batches:
            size = min(BATCH_ROWS, max(1, _BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
            for start in range(0, batch.num_rows, size):
                yield from _rows(batch.slice(start, size), notes)
            progress(min(source.tell(), blob.size))


@contextmanager
def _file(blob: Blob) -> Iterator[IO[bytes]]:
    """A file in which one can go back and forth: the file itself, or a temporary one where it comes packed."""
    if blob.path is not None:
        with blob.path.open("rb") as plain:
            yield plain
        return
    with tempfile.TemporaryFile() as unpacked, blob.open() as stream:
        shutil.copyfileobj(stream, unpacked, BLOCK)
        unpacked.seek(0)
        yield unpacked


@contextmanager
def _readable_errors(name: str, kind: str) -> Iterator[None]:
    """Turn the library's error about a broken file into a sentence."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).strip().split("\n")[0][:150].rstrip(".")
        raise DataError(f"{name} is not a complete {kind} file ({why}). Download or export it again.") from None


def _refuse_twins(name: str, columns: list[str]) -> None:
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{name}: two columns have the same name, {twice!r}. Rename one.")


def _rows(batch: Any, notes: Notes) -> Iterator[Row]:
    import pyarrow

    batch.validate(full=True)  # reading values of a damaged one could end the process
    columns = [_plain(column) for column in batch.columns]
    for row in pyarrow.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist(maps_as_pydicts="lossy"):
        if any_garbled(row):
            notes.mark("mojibake")
        yield row


def _plain(column: Any) -> Any:
    """`column` with values as JSON has them: NaN as None, times and decimals as text, bytes as text where they are."""
    import pyarrow
    import pyarrow.compute as compute

    kind = column.type
    if pyarrow.types.is_floating(kind):
        return compute.if_else(compute.is_finite(column), column, pyarrow.scalar(None, kind))
    if pyarrow.types.is_temporal(kind) or pyarrow.types.is_decimal(kind):
        return column.cast(pyarrow.string())
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        with suppress(pyarrow.ArrowInvalid):
            return column.cast(pyarrow.large_string())
    return column
