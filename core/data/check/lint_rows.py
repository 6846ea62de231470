"""What conversations alone betray, before any template: copies, contradictions, placeholders, foreign marks."""

from __future__ import annotations

import re
from array import array
from typing import Any

import numpy as np

from core.data.check.findings import RULES
from core.data.conversation import Conversation, Finding
from core.data.findings import Hits
from core.data.split import keys_of

MARKS = (
    *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "</s>", "<bos>", "<eos>"),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|start|>", "<|message|>", "<|channel|>", "<|return|>"),
    *("### Human:", "### Assistant:", "### Instruction:", "### Response:"),
)
# Special tokens that stand in data by right: reasoning and tools as some models write them.
_RIGHTFUL = re.compile(r"think|tool|function|call|image|video|audio|pad|unk|mask", re.IGNORECASE)

# Each with its first letter: most texts do not have it, and need no further look.
_NAMES = "name first_name last_name username user company city country date topic product question answer context"
_NAMES += " instruction input output prompt response email title"
_NAMED = "|".join(spelt for name in _NAMES.split() for spelt in (name, name.upper(), name.capitalize()))
_PLACEHOLDERS = (
    ("{", re.compile(r"\{\{ ?[A-Za-z][\w .-]{0,40}? ?\}\}")),
    ("{", re.compile(rf"\{{(?:{_NAMED})\}}(?![}}'\"])")),
    ("[", re.compile(r"\[(?:INSERT|PLACEHOLDER|FILL IN|YOUR)(?: [^\[\]\n]{0,60})?\](?!\()")),
    ("[", re.compile(r"\[(?:insert|placeholder|fill in) [^\[\]\n]{1,60}\](?!\()")),
    ("<", re.compile(r"<(?:insert|your|INSERT|YOUR)[ _-][^<>\n]{1,40}>")),
    ("<", re.compile(rf"<(?:{_NAMED})>")),
)
_BEFORE_CODE = re.compile(r"[\w$\\{'\"<]")
_CODE = re.compile(r"```|</|\bdef |\bimport |\bfunction\b|\breturn\b|\bprint\(|\bf['\"]|;\n|=>|/>")

# A line of a chat's log, as WhatsApp and others export it: '1/1/24, 09:01 - Ann: hey', '[01.01.24, 09:01:22] Ann: hey'.
_LOGGED = re.compile(
    r"^\W{0,2}\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? \d{1,2}[:.]\d\d[\w:.\u202f ]{0,8}\]?(?: -)? [^:\n]{1,40}: ",
    re.MULTILINE,
)
_LOG_BEGINS, _LOG_LINES = 4000, 3

LONG_TIMES = 25
LONG_AT_LEAST = 20_000
SHORT_SHARE = 50
SHORT_AT_MOST = 3
MIDDLE_NEEDS_ROWS = 10


class RowLint:
    """Looks at every conversation once, then says what it found. About 40 bytes a row are kept."""

    def __init__(self, tokenizer: Any) -> None:
        self.hits = Hits(RULES)
        self._marks = _by_first_letter({*MARKS, *_special_tokens(tokenizer)})
        self._rows, self._chars, self._reply_chars = array("i"), array("q"), array("q")
        self._whole, self._prompts, self._replies = array("q"), array("q"), array("q")

    def add(self, conversation: Conversation) -> None:
        """Look at one conversation."""
        row = conversation.row
        keys = keys_of(conversation)
        self._rows.append(row)
        self._whole.append(keys.whole)
        self._prompts.append(keys.prompt)
        self._replies.append(keys.reply)
        messages = conversation.messages
        text = conversation.text
        if text is None:
            reasoning = [message["reasoning_content"] for message in messages if message.get("reasoning_content")]
            text = "\n".join([*(message["content"] for message in messages), *reasoning])
        replies = sum(len(message["content"]) for message in messages if message["role"] == "assistant")
        self._chars.append(len(text))
        self._reply_chars.append(replies if conversation.text is None else len(text))
        self._marks_in(row, text)
        found = _placeholder(text)
        if found is not None:
            self.hits.add("placeholder", row, found)
        if conversation.text is not None:
            logged = [found[0] for found in _LOGGED.finditer(text[:_LOG_BEGINS])]
            if len(logged) >= _LOG_LINES:
                self.hits.add("chat-log", row, f"'{logged[0].strip()} …'")

    def _marks_in(self, row: int, text: str) -> None:
        for letter, pattern in self._marks.items():
            found = pattern.search(text) if letter in text else None
            if found is not None:
                self.hits.add("template-text", row, found[0])
                return

    @property
    def rows(self) -> Any:
        """The row numbers, rising."""
        return _numbers(self._rows, "i4")

    @property
    def keys(self) -> Any:
        """For each row the key that its copies, and all that ask the same, share (core/data/split.py)."""
        return _numbers(self._prompts)

    def findings(self) -> list[Finding]:
        """Everything found, in no order; to be asked once, after the last conversation."""
        self._find_copies()
        self._find_contradictions()
        codes = ("placeholder", "chat-log", "template-text", "duplicate", "same-prompt-different-reply")
        return list(filter(None, [*map(self.hits.finding, codes), *self._outliers()]))

    def _find_copies(self) -> None:
        _, first = np.unique(_numbers(self._whole), return_index=True)
        is_copy: Any = np.ones(len(self._rows), dtype=bool)
        is_copy[first] = False
        self.hits.extend("duplicate", self.rows[is_copy].tolist())

    def _find_contradictions(self) -> None:
        _, group = np.unique(self.keys, return_inverse=True)
        pairs = np.unique(np.stack([group, _numbers(self._replies)]), axis=1)
        replies = np.bincount(pairs[0], minlength=group.max(initial=0) + 1)
        differ = (replies > 1)[group]
        self.hits.extend("same-prompt-different-reply", self.rows[differ].tolist())

    def _outliers(self) -> list[Finding | None]:
        if len(self._rows) < MIDDLE_NEEDS_ROWS:
            return []
        rows, chars, replies = self.rows, _numbers(self._chars), _numbers(self._reply_chars)
        middle = int(np.median(chars))
        self.hits.extend("very-long", rows[chars > max(LONG_TIMES * middle, LONG_AT_LEAST)].tolist())
        too_long = self.hits.finding("very-long", times=LONG_TIMES, middle=f"{middle:,}")
        middle = int(np.median(replies))
        limit = min(SHORT_AT_MOST, middle // SHORT_SHARE)
        self.hits.extend("very-short", rows[(replies <= limit) & (replies > 0)].tolist())
        return [too_long, self.hits.finding("very-short", limit=limit, middle=f"{middle:,}")]


def _by_first_letter(marks: set[str]) -> dict[str, re.Pattern[str]]:
    """For each first letter a pattern of the marks that begin with it: a text without the letter has none of them."""
    patterns = {}
    for letter in sorted({mark[0] for mark in marks}):
        endings = sorted((mark[1:] for mark in marks if mark[0] == letter), key=len, reverse=True)
        patterns[letter] = re.compile(f"{re.escape(letter)}(?:{'|'.join(map(re.escape, endings))})")
    return patterns


def _placeholder(text: str) -> str | None:
    """A placeholder in `text`; None also where the text is code, for it may be right there."""
    for letter, pattern in _PLACEHOLDERS:
        found = pattern.search(text) if letter in text else None
        if found is not None and not _BEFORE_CODE.match(text[max(0, found.start() - 1) : found.start()]):
            return None if _CODE.search(text) else found[0]
    return None


def _special_tokens(tokenizer: Any) -> list[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {*tokenizer.all_special_tokens, *(str(each) for each in added if each.special)}
    return [token for token in tokens if len(token) > 2 and not _RIGHTFUL.search(token)]


def _numbers(values: array[int], kind: str = "i8") -> Any:
    return np.frombuffer(values, dtype=kind) if values else np.zeros(0, dtype=kind)
