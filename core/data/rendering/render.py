"""Messages to tokens and a loss mask: the one rendering that preview, checks and training share.

A token counts in the loss exactly when the template's text that it stands for does (template.py). The text is
tokenised whole; where the tokens' own bytes show that none reaches over a border between what counts and what does
not, the mask is proved. Else the text is tokenised once more, cut at the borders: those tokens are taken if they are
the same or spell the same text, for they are what the model sees when it answers; else the whole ones if their
offsets keep to the borders. A row for which none of it holds is refused, never guessed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any, overload

from core.data.conversation import Conversation, Conversations, Dropped
from core.data.rendering.template import Span, Template, TextLayout, Unrenderable
from core.data.rendering.token_ends import TokenEnds
from core.settings import DataSettings

IGNORED = -100
# Conversations that are tokenised together: enough for the tokenizer to use every core.
BATCH = 256


@dataclass(frozen=True, slots=True)
class Rendered:
    """One conversation as the model sees it. `ids` and `trained` have the same length, at most `max_length`.

    `full_length` is the length in tokens before it was cut. `weights`, as long as `ids`, is there only where a
    trained token counts by anything but 1.
    """

    row: int
    ids: list[int]
    trained: list[bool]
    full_length: int
    weights: list[float] | None = None

    @property
    def truncated(self) -> bool:
        """Whether its end was cut off."""
        return self.full_length > len(self.ids)

    @property
    def labels(self) -> list[int]:
        """The targets of the loss: the token where it is trained on, -100 elsewhere."""
        return [token if trained else IGNORED for token, trained in zip(self.ids, self.trained, strict=True)]


class RenderedRows(Sequence[Rendered]):
    """Many rendered conversations, five bytes a token.

    Of conversation i: row number, `lengths` and `full_lengths` in tokens; its `ids` and `trained` (0 or 1) lie from
    starts[i] to starts[i + 1]; `weights` holds those of the few that have any.
    """

    def __init__(self) -> None:
        self.lengths, self.full_lengths, self.rows = array("i"), array("i"), array("i")
        self.ids, self.trained, self.starts = array("i"), array("b"), array("q", [0])
        self.weights: dict[int, list[float]] = {}

    @classmethod
    def over(
        cls, rows: Any, full_lengths: Any, starts: Any, ids: Any, trained: Any, weights: dict[int, list[float]]
    ) -> RenderedRows:
        """Those whose numbers lie elsewhere already, such as in a mapped file; nothing can be appended."""
        made = cls()
        made.rows, made.full_lengths, made.starts, made.ids, made.trained = rows, full_lengths, starts, ids, trained
        made.weights = weights
        made.lengths = array("i", (end - start for start, end in pairwise(starts)))
        return made

    def append(self, rendered: Rendered) -> None:
        """Add one at the end."""
        if rendered.weights is not None:
            self.weights[len(self.rows)] = rendered.weights
        self.ids.extend(rendered.ids)
        self.trained.extend(rendered.trained)
        self.starts.append(len(self.ids))
        self.rows.append(rendered.row)
        self.lengths.append(len(rendered.ids))
        self.full_lengths.append(rendered.full_length)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rendered]: ...
    def __getitem__(self, index: int | slice) -> Rendered | list[Rendered]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = self.starts[index], self.starts[index + 1]
        trained = [bool(each) for each in self.trained[start:end]]
        ids, weights = self.ids[start:end].tolist(), self.weights.get(index)
        return Rendered(self.rows[index], ids, trained, self.full_lengths[index], weights)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return len(self.ids)


class PickedRows(Sequence[Rendered]):
    """The rows of a RenderedRows at `indices`, in that order, without a copy; `lengths` in tokens."""

    def __init__(self, rows: RenderedRows, indices: Sequence[int]) -> None:
        self._rows, self._indices = rows, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Rendered: ...
    @overload
    def __getitem__(self, index: slice) -> list[Rendered]: ...
    def __getitem__(self, index: int | slice) -> Rendered | list[Rendered]:
        if isinstance(index, slice):
            return [self._rows[each] for each in self._indices[index]]
        return self._rows[self._indices[index]]

    @property
    def lengths(self) -> list[int]:
        """The length of each, in tokens."""
        return [self._rows.lengths[index] for index in self._indices]


@dataclass(frozen=True)
class RenderedSet:
    """A whole dataset rendered: what is trained on, and what was dropped, with the reasons.

    A plain text longer than the limit stands in `usable` in several pieces, all of its row's number; so does a
    conversation of which some replies need a text of their own (template.py).
    """

    rows: int
    usable: RenderedRows
    dropped: list[Dropped]

    @property
    def truncated(self) -> int:
        """How many conversations were cut to the length limit."""
        return sum(full > cut for full, cut in zip(self.usable.full_lengths, self.usable.lengths, strict=True))


class Renderer:
    """Conversations to tokens, for one tokenizer and one set of data settings."""

    def __init__(self, tokenizer: Any, settings: DataSettings) -> None:
        self.tokenizer = tokenizer
        self.template = Template(tokenizer, settings)
        self._ends = TokenEnds.of(tokenizer)

    def render_many(
        self, conversations: Iterable[Conversation], max_length: int
    ) -> Iterator[tuple[TextLayout | None, Rendered | Dropped]]:
        """All of them in order, in batches. What is in several texts gives several results, one after the other."""
        stream = iter(conversations)
        while batch := list(islice(stream, BATCH)):
            layouts = [self._try(conversation) for conversation in batch]
            laid_out = [layout for each in layouts if not isinstance(each, Dropped) for layout in each]
            tokens = iter(self._tokenise(laid_out))
            for conversation, each in zip(batch, layouts, strict=True):
                if isinstance(each, Dropped):
                    yield None, each
                    continue
                found = list(islice(tokens, len(each)))
                if conversation.text is not None and found[0] is not None:
                    yield from ((each[0], piece) for piece in _pieces(conversation.row, found[0], max_length))
                else:
                    yield from _of_one_row(each, found, max_length)

    def _try(self, conversation: Conversation) -> list[TextLayout] | Dropped:
        try:
            return self.template.lay_outs(conversation)
        except Unrenderable as error:
            return Dropped(conversation.row, str(error))

    def _tokenise(self, layouts: list[TextLayout]) -> list[_Tokens | None]:
        """Tokens and weights of each layout, or None where the borders cannot be kept."""
        if not layouts:
            return []
        cut = [_segments(layout) for layout in layouts]
        whole = self._ids([layout.text for layout in layouts])
        results = [self._by_ends(*each) for each in zip(layouts, whole, cut, strict=True)]
        for index, result in enumerate(results):
            if result is None:
                results[index] = self._by_cutting(layouts[index], whole[index], cut[index])
        return results

    def _by_ends(self, layout: TextLayout, ids: list[int], segments: list[_Segment]) -> _Tokens | None:
        """The whole's tokens, where their own bytes show that each border is kept."""
        texts = [layout.text[start:end] for start, end, _ in segments]
        counts = self._ends.counts(ids, texts) if self._ends is not None else None
        if counts is None:
            return None
        return _Tokens(ids, _repeated(segments, counts))

    def _by_cutting(self, layout: TextLayout, whole: list[int], segments: list[_Segment]) -> _Tokens | None:
        """The text tokenised in the parts that the borders cut it into."""
        pieces = self._ids([layout.text[start:end] for start, end, _ in segments])
        joined = _Tokens(list(chain(*pieces)), _repeated(segments, map(len, pieces)))
        if joined.ids == whole:
            return joined
        text = self.tokenizer.decode(joined.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return joined if text == layout.text else self._by_offsets(layout, segments)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return list(encoded["input_ids"])

    def _by_offsets(self, layout: TextLayout, segments: list[_Segment]) -> _Tokens | None:
        if not self.tokenizer.is_fast:
            return None
        encoded = self.tokenizer(layout.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        weights = []
        for start, end in encoded["offset_mapping"]:
            holder = next((each for each in segments if each[0] <= start and end <= each[1]), None)
            if holder is None:
                return None
            weights.append(holder[2])
        return _Tokens(list(encoded["input_ids"]), weights)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """All tokens of a layout, and by how much each counts."""

    ids: list[int]
    weights: list[float]


_Segment = tuple[int, int, float]


def _segments(layout: TextLayout) -> list[_Segment]:
    """The text in parts (start, end, weight) that either count as a whole or do not."""
    parts: list[_Segment] = []
    at = 0
    for span in [*layout.spans, Span(len(layout.text), len(layout.text), None, 0.0)]:
        if span.start > at:
            parts.append((at, span.start, 0.0))
        if span.end > span.start:
            parts.append((span.start, span.end, span.weight))
        at = span.end
    return parts


def _repeated(segments: list[_Segment], counts: Iterable[int]) -> list[float]:
    """The weight of each token, where each of the segments has so many of them."""
    weights: list[float] = []
    for (_, _, weight), count in zip(segments, counts, strict=True):
        weights.extend([weight] * count)
    return weights


def _rendered(row: int, ids: list[int], weights: list[float], full_length: int) -> Rendered:
    trained = [weight > 0 for weight in weights]
    plain = all(weight in (0.0, 1.0) for weight in set(weights))
    return Rendered(row, ids, trained, full_length, None if plain else weights)


def _cut(row: int, tokens: _Tokens, max_length: int) -> Rendered | Dropped:
    if not any(tokens.weights[1:]):
        return Dropped(row, "nothing in it counts in the loss")
    if not any(tokens.weights[1:max_length]):
        return Dropped(row, f"its prompt alone fills the {max_length:,} tokens, so no reply is left to train on")
    return _rendered(row, tokens.ids[:max_length], tokens.weights[:max_length], len(tokens.ids))


def _of_one_row(
    layouts: list[TextLayout], tokens: list[_Tokens | None], max_length: int
) -> Iterator[tuple[TextLayout, Rendered | Dropped]]:
    """A conversation in one text, or in several, each with replies of its own.

    It is dropped as a whole where the borders of one cannot be kept, or nothing of any is left. One of which nothing is
    left beside others counts as cut off: the last of those tells its length.
    """
    row, reason = layouts[0].row, "one token spans the end of the prompt and the start of the reply"
    if None in tokens:
        yield layouts[0], Dropped(row, reason)
        return
    results = [(layout, _cut(row, found, max_length)) for layout, found in zip(layouts, tokens, strict=True) if found]
    kept = [(layout, result) for layout, result in results if isinstance(result, Rendered)]
    if not kept:
        yield results[-1]
        return
    if len(kept) < len(results):
        layout, last = kept[-1]
        kept[-1] = (layout, replace(last, full_length=max(len(found.ids) for found in tokens if found)))
    yield from kept


def _pieces(row: int, tokens: _Tokens, max_length: int) -> Iterator[Rendered | Dropped]:
    """A plain text goes on in another piece where the limit is reached; a piece of one token would teach nothing."""
    if len(tokens.ids) < 2:
        yield Dropped(row, "its text is a single token, so there is nothing to predict")
        return
    count = -(-len(tokens.ids) // max_length)
    borders = [part * len(tokens.ids) // count for part in range(count + 1)]
    for start, end in pairwise(borders):
        yield _rendered(row, tokens.ids[start:end], tokens.weights[start:end], end - start)


def render_all(tokenizer: Any, conversations: Conversations, settings: DataSettings) -> RenderedSet:
    """Render every conversation; one that the template refuses or that has nothing left to train on is dropped."""
    usable = RenderedRows()
    dropped = list(conversations.dropped)
    for _, result in Renderer(tokenizer, settings).render_many(conversations.usable, settings.max_length):
        if isinstance(result, Dropped):
            dropped.append(result)
        else:
            usable.append(result)
    return RenderedSet(conversations.rows, usable, sorted(dropped, key=lambda drop: drop.row))
