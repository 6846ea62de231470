"""The first half of a check: the file is read, every row looked at before any token. It can serve several checks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.check.lint_rows import RowLint
from core.data.conversation import Conversation, Finding
from core.data.dataset import Loaded, load, size_of
from core.settings import DataSettings

# The settings that decide what is read; with the same ones, and the same model, a file need not be read again.
DECIDE = {"path", "format", "mapping", "encoding", "split", "config", "named_splits", "system", "join_turns"}
STAGE = "reading"
_LINTED_AT_ONCE = 2000
_LOADING = 0.8  # of the stage; the rest is looking at every row

# (stage, share of it that is done); may raise, which ends the work.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class ReadRows:
    """A dataset's conversations, what looking at them left behind, and the findings of both."""

    loaded: Loaded
    lint: RowLint
    findings: list[Finding]

    @property
    def first_usable(self) -> int:
        """The first row of the file that is used: others may come before it, such as those of a test split."""
        return int(self.lint.rows[0])

    def conversation(self, row: int) -> Conversation | None:
        """The conversation in a row of the file, None where that row is not used."""
        rows = self.lint.rows
        place = int(np.searchsorted(rows, row))
        return self.loaded.usable[place] if place < len(rows) and rows[place] == row else None


def read_rows(path: Path, settings: DataSettings, tokenizer: Any, progress: Progress) -> ReadRows:
    """Read the dataset at `path` and look at every row. Raises DataError where it cannot be used."""
    size = max(1, size_of(path))
    loaded = load(path, settings, lambda done: progress(STAGE, min(1.0, done / size) * _LOADING))
    lint = RowLint(tokenizer)
    for count, conversation in enumerate(loaded.usable):
        lint.add(conversation)
        if count % _LINTED_AT_ONCE == 0:
            progress(STAGE, _LOADING + (1 - _LOADING) * count / len(loaded.usable))
    return ReadRows(loaded, lint, [*loaded.findings, *lint.findings()])
