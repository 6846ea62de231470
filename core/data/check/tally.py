"""Renders conversations, counts their tokens and lints them on the way: the raw material of the report's figures."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from core.data.check.lint_layout import LayoutLint
from core.data.check.lint_tokens import TokenLint
from core.data.conversation import Conversation, Dropped, Finding
from core.data.formats.masks import DETAIL_KEY
from core.data.render import Renderer
from core.recipe import DataSettings

# Conversations between two looks at whether anybody still wants the answer.
BATCH = 256


class Tally:
    """What rendering some or all conversations of a dataset gives: 16 bytes a row are kept, and no token."""

    def __init__(self, renderer: Renderer, settings: DataSettings, stops: Collection[int]) -> None:
        self._renderer, self._settings = renderer, settings
        self._layouts, self._tokens = LayoutLint(), TokenLint(renderer.tokenizer, stops)
        self._columns = [array("i") for _ in range(4)]
        self.dropped: list[Dropped] = []

    def take(self, conversations: Iterable[Conversation], progress: Callable[[int], None]) -> None:
        """Render and count `conversations`, rows rising; `progress` gets how many are done, and may raise to end it."""
        stream, done = iter(conversations), 0
        while batch := list(islice(stream, BATCH)):
            self._take(batch)
            done += len(batch)
            progress(done)

    def _take(self, batch: list[Conversation]) -> None:
        by_row = {each.row: each for each in batch}
        before = 0
        for layout, result in self._renderer.render_many(batch, self._settings.max_length):
            conversation = by_row[result.row]
            if layout is not None and result.row != before:
                self._layouts.add(conversation, layout)
            before = result.row
            if isinstance(result, Dropped):
                self.dropped.append(result)
                refused = layout is None and self._is_fine_without_system(conversation)
                self._tokens.add_dropped(layout, result, refused)
                continue
            masked = any(DETAIL_KEY in message for message in conversation.messages)
            self._tokens.add(result, plain=conversation.text is not None, masked=masked)
            values = (result.row, len(result.ids), result.full_length, sum(result.trained))
            for column, value in zip(self._columns, values, strict=True):
                column.append(value)

    def _is_fine_without_system(self, conversation: Conversation) -> bool:
        """Whether a conversation that the template refuses has a system prompt to blame for it."""
        others = [message for message in conversation.messages if message["role"] != "system"]
        if len(others) == len(conversation.messages):
            return False
        without = replace(conversation, messages=others)
        [(layout, _)] = self._renderer.render_many([without], self._settings.max_length)
        return layout is not None

    @property
    def rows(self) -> Any:
        """The row of each rendered unit, rising; pieces of one plain text have the same."""
        return _numbers(self._columns[0])

    @property
    def lengths(self) -> Any:
        """Tokens of each unit after the cut."""
        return _numbers(self._columns[1])

    @property
    def full_lengths(self) -> Any:
        """Tokens of each unit before the cut."""
        return _numbers(self._columns[2])

    @property
    def trained(self) -> Any:
        """Tokens of each unit that count in the loss."""
        return _numbers(self._columns[3])

    def findings(self, advice: str, among: str = "") -> list[Finding]:
        """What the linter says of layouts and tokens; `among` names the rows looked at if not all.

        `advice` says to what the length limit could be raised.
        """
        return self._layouts.findings(among) + self._tokens.findings(self._settings.max_length, advice, among)

    def rows_of(self, code: str) -> Sequence[int]:
        """Every row with a code of these linters."""
        return self._layouts.hits.rows(code) or self._tokens.hits.rows(code)


def _numbers(values: array[int]) -> Any:
    return np.array(values, dtype=np.int64)
