"""What only tokens show: rows with nothing trained, replies without their end, what the length limit cuts."""

from collections.abc import Collection, Iterator
from typing import Any

from core.data.check.findings import RULES
from core.data.conversation import Dropped, Finding
from core.data.findings import Hits
from core.data.rendering.render import Rendered
from core.data.rendering.template import TextLayout

# Tokens that end a turn in the families' own templates; a chat program may stop at them.
ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "</s>", "<|endoftext|>", "<|return|>"),
    *("<|END_OF_TURN_TOKEN|>", "<|end_of_text|>", "<|call|>", "<turn|>", "<|END_RESPONSE|>", "<｜end▁of▁sentence｜>"),
    *("<|user|>", "<|observation|>", "[/INST]", "<|eot|>", "<|eom|>", "<|role_end|>", "[|endofturn|]", "<eos>"),
    "<end_of_utterance>",
)
# A template may write a line break behind the token that ends the turn, and have it learned too.
_BEHIND = 2


class TokenLint:
    """Looks at each rendered row. `stops` are the ids at which a chat with this model stops, where they are known.

    `embedding_rows` is how many tokens the model has embeddings for, where that is known.
    """

    def __init__(self, tokenizer: Any, stops: Collection[int] = (), embedding_rows: int | None = None) -> None:
        self.hits = Hits(RULES)
        self._rows, self._name_of = embedding_rows, tokenizer.convert_ids_to_tokens
        self._stops = frozenset(stops) | {tokenizer.eos_token_id}
        if not stops:
            special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
            self._stops |= special & set(tokenizer.convert_tokens_to_ids(list(ENDS)))
        self._bos = tokenizer.bos_token_id
        self._end = tokenizer.eos_token or "an end-of-text token"

    def add(self, result: Rendered, plain: bool = False, masked: bool = False) -> None:
        """Look at one row that was rendered; of `plain` text no turn is expected to end.

        `masked`: the data masks characters of its replies, so what is trained on may pause within one.
        """
        if self._bos is not None and result.ids[:2] == [self._bos, self._bos]:
            self.hits.add("double-bos", result.row)
        if self._rows is not None and max(result.ids, default=0) >= self._rows:
            for token in sorted({each for each in result.ids if each >= self._rows}):
                self.hits.add("no-embedding", result.row, f"{self._name_of(token)!r} (id {token:,})")
        if result.truncated:
            self.hits.add("reply-cut", result.row)
        if not plain and any(self._is_endless(*run, masked) for run in _ends_of_runs(result)):
            self.hits.add("no-end-of-turn", result.row)

    def _is_endless(self, last: list[int], behind: list[int] | None, masked: bool) -> bool:
        """Whether a trained stretch ends without a stop; one that goes on in the same masked reply has not ended."""
        goes_on = masked and behind is not None and not self._stops.intersection(behind)
        return not goes_on and not self._stops.intersection(last)

    def add_dropped(self, layout: TextLayout | None, dropped: Dropped, mended_by: str = "") -> None:
        """Look at one row that cannot be trained on; `mended_by` is the code of what would make it usable."""
        if mended_by:
            self.hits.add(mended_by, dropped.row)
        elif layout is not None and "fills the" in dropped.reason:
            self.hits.add("question-fills-limit", dropped.row)
        elif layout is not None and not layout.spans:
            self.hits.add("nothing-trained", dropped.row)
        else:
            self.hits.add("unrenderable", dropped.row, dropped.reason)

    def findings(self, max_length: int, advice: str, among: str = "") -> list[Finding]:
        """Everything found; `advice` says to what the length limit could be raised."""
        limit = f"{max_length:,}"
        found = (
            self.hits.finding("nothing-trained", among),
            self.hits.finding("no-end-of-turn", among, example=self._end),
            self.hits.finding("no-embedding", among, limit=f"{(self._rows or 1) - 1:,}"),
            self.hits.finding("question-fills-limit", among, limit=limit),
            self.hits.finding("unrenderable", among),
            self.hits.finding("system-refused", among),
            self.hits.finding("same-speaker-refused", among),
            self.hits.finding("double-bos", among),
            self.hits.finding("reply-cut", among, limit=limit, advice=advice),
        )
        return list(filter(None, found))


def _ends_of_runs(rendered: Rendered) -> Iterator[tuple[list[int], list[int] | None]]:
    """The last tokens of each stretch that is trained on, and the tokens between it and the next, if there is one.

    A stretch that the length limit cut is left out.
    """
    flags = bytes(rendered.trained)
    end = flags.find(b"\x01\x00")
    while end >= 0:
        begins = flags.find(b"\x01", end + 1)
        behind = rendered.ids[end + 1 : begins] if begins >= 0 else None
        yield rendered.ids[max(0, end + 1 - _BEHIND) : end + 1], behind
        end = flags.find(b"\x01\x00", end + 1)
    if flags[-1] and not rendered.truncated:
        yield rendered.ids[-_BEHIND:], None
