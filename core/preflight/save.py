"""Files that a dataset's check can save: its report, and the usable rows as `messages` jsonl."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from core.data.check import Report
from core.data.check.markdown import as_markdown
from core.data.conversation import Conversation
from core.data.dataset import Loaded
from core.data.split import keys_of
from core.errors import DataError
from core.workspace import replacing


def save_report(report: Report, path: Path) -> None:
    """Write `report` to `path`: as a page of Markdown where it ends in .md, else as JSON. Raises DataError."""
    found = report.as_json()
    text = as_markdown(found) if path.suffix == ".md" else json.dumps(found, ensure_ascii=False, indent=1)
    with _replaced(path) as file:
        file.write(text)


def save_cleaned(loaded: Loaded, left_out: set[int], path: Path, without_copies: bool = False) -> int:
    """Write the usable rows but those `left_out` to `path`, a line of JSON each; returns how many. Raises DataError."""
    written = 0
    seen: set[int] = set()
    with _replaced(path) as file:
        for conversation in loaded.usable:
            if conversation.row in left_out:
                continue
            if without_copies:
                key = keys_of(conversation).whole
                if key in seen:
                    continue
                seen.add(key)
            file.write(json.dumps(_line(loaded, conversation), ensure_ascii=False) + "\n")
            written += 1
    return written


def _line(loaded: Loaded, conversation: Conversation) -> dict[str, Any]:
    """A row to write, with its split, so that what is held out stays so when the file is used."""
    line: dict[str, Any] = {"messages": conversation.messages}
    if conversation.text is not None:
        line = {"text": conversation.text}
    elif conversation.tools:
        line["tools"] = conversation.tools
    if loaded.splits:
        line["split"] = "validation" if loaded.held_out.holds([conversation.row])[0] else "train"
    return line


@contextmanager
def _replaced(path: Path) -> Iterator[IO[str]]:
    """A file that takes the place of `path` once it is whole. Raises DataError where it cannot be written."""
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path.name} cannot be written: {error.strerror}. Is there space on the disk?") from None
