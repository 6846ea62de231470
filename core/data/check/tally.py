"""Renders conversations, counts their tokens and lints them on the way: the raw material of the report's figures."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from core.data.check.lint_layout import LayoutLint
from core.data.check.lint_tokens import TokenLint
from core.data.conversation import Conversation, Dropped, Finding
from core.data.formats.valid import joined
from core.data.formats.weights import DETAIL_KEY
from core.data.rendering.render import RenderedRows, Renderer
from core.data.rendering.template import TextLayout
from core.settings import DataSettings

# Conversations between two looks at whether anybody still wants the answer.
BATCH = 256
# Of a dataset with more tokens, none are kept: five bytes each.
MOST_KEPT = 40_000_000


class TokenTally:
    """What rendering some or all conversations of a dataset gives.

    Of each rendered unit, once they are taken: `rows` (rising; pieces of one plain text have the same), `lengths` and
    `full_lengths` in tokens after and before the cut, and `trained`, the tokens that count in the loss.
    `rendered` are the rows themselves, so that they need not be rendered again; None where they are too many to keep
    or not wanted. `refused` are the dropped ones as the renderer reports them, `dropped` with what would mend them.
    """

    def __init__(
        self,
        renderer: Renderer,
        settings: DataSettings,
        stops: Collection[int],
        embedding_rows: int | None = None,
        keep_rendered: bool = False,
    ) -> None:
        self._renderer, self._settings = renderer, settings
        self._layouts = LayoutLint(renderer.template.dropped)
        self._tokens = TokenLint(renderer.tokenizer, stops, embedding_rows)
        self._counts = array("i")
        self.dropped: list[Dropped] = []
        self.refused: list[Dropped] = []
        self.rendered = RenderedRows() if keep_rendered else None

    def take(self, conversations: Iterable[Conversation], progress: Callable[[int], None]) -> None:
        """Render and count `conversations`, rows rising; `progress` gets how many are done, and may raise to end it."""
        stream, done = iter(conversations), 0
        while batch := list(islice(stream, BATCH)):
            self._take(batch)
            done += len(batch)
            progress(done)
        counts = np.array(self._counts, dtype=np.int64).reshape(-1, 4).T
        self.rows, self.lengths, self.full_lengths, self.trained = np.ascontiguousarray(counts)

    def _take(self, batch: list[Conversation]) -> None:
        by_row = {each.row: each for each in batch}
        layouts: list[TextLayout] = []
        for layout, result in self._renderer.render_many(batch, self._settings.max_length):
            conversation = by_row[result.row]
            if layouts and layouts[0].row != result.row:
                self._layouts.add(by_row[layouts[0].row], layouts)
                layouts = []
            if layout is not None and conversation.text is None:
                layouts.append(layout)
            if isinstance(result, Dropped):
                self.refused.append(result)
                mended_by = self._mended_by(conversation) if layout is None else ""
                if mended_by == "same-speaker-refused":
                    result = replace(result, reason=f"{result.reason}; data.join_turns merges consecutive turns")
                self.dropped.append(result)
                self._tokens.add_dropped(layout, result, mended_by)
                continue
            masked = any(DETAIL_KEY in message for message in conversation.messages)
            self._tokens.add(result, plain=conversation.text is not None, masked=masked)
            self._counts.extend((result.row, len(result.ids), result.full_length, sum(result.trained)))
            if self.rendered is not None:
                self.rendered.append(result)
                self.rendered = self.rendered if self.rendered.tokens <= MOST_KEPT else None
        if layouts:
            self._layouts.add(by_row[layouts[0].row], layouts)

    def _mended_by(self, conversation: Conversation) -> str:
        """What would make a conversation usable that the template refuses, by the code of its finding."""
        others = [message for message in conversation.messages if message["role"] != "system"]
        merged = joined(conversation.messages)
        for messages, code in ((others, "system-refused"), (merged, "same-speaker-refused")):
            if len(messages) < len(conversation.messages):
                mended = replace(conversation, messages=messages)
                rendered = self._renderer.render_many([mended], self._settings.max_length)
                if all(layout is not None for layout, _ in rendered):
                    return code
        return ""

    def findings(self, advice: str, among: str = "") -> list[Finding]:
        """What the linter says of layouts and tokens; `among` names the rows looked at if not all.

        `advice` says to what the length limit could be raised.
        """
        return self._layouts.findings(among) + self._tokens.findings(self._settings.max_length, advice, among)

    def rows_of(self, code: str) -> Sequence[int]:
        """Every row with a code of these linters."""
        return self._layouts.hits.rows(code) or self._tokens.hits.rows(code)
