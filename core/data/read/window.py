"""A window that slides over JSON of any size, so that its values are read one at a time."""

import json
import re
from typing import Any

from core.data.read.blob import Progress
from core.data.read.jsons import explain, is_too_deep, make_decoder
from core.data.read.mojibake import is_garbled_json
from core.data.read.notes import Notes
from core.data.read.text import LONGEST, DecodedText
from core.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_NEAR = 12  # characters from the window's end: an error there may be only that it ends


class Window:
    """The part of a JSON text that is looked at. `line` is where its next character stands."""

    def __init__(self, text: DecodedText, notes: Notes, progress: Progress | None = None) -> None:
        self._name, self._notes = text.name, notes
        self._pieces = text.pieces(progress)
        self._decoder = make_decoder(notes)
        self._text, self._at = "", 0
        self._line, self._column = 1, 1  # of the window's first character
        self._lines, self._lines_to = 0, 0  # line feeds counted within the window, and up to where

    @property
    def line(self) -> int:
        """The line of the next character that is not white space, counted from 1."""
        self.peek()
        self._lines += self._text.count("\n", self._lines_to, self._at)
        self._lines_to = self._at
        return self._line + self._lines

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def start(self) -> str:
        """The first characters of what comes next, within its line."""
        self.peek()
        return self._text[self._at : self._at + 30].split("\n")[0]

    def take(self, wanted: str) -> bool:
        """Go over the next character if it is `wanted`."""
        if self.peek() != wanted:
            return False
        self._at += 1
        return True

    def expect(self, wanted: str) -> None:
        """Go over the next character, which must be one of `wanted`. Raises DataError where it is not."""
        if not self.peek():
            raise self._cut_off()
        if self._text[self._at] not in wanted:
            delimiter = ":" if wanted == ":" else ","
            raise self._refusal(json.JSONDecodeError(f"Expecting '{delimiter}' delimiter", self._text, self._at))
        self._at += 1

    def value(self) -> Any:
        """The next value, whole. Raises DataError where it is broken, with line and column."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                at_the_end = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _NEAR
                if at_the_end and self._more():
                    continue
                raise self._refusal(error) from None
            except RecursionError:
                raise self._too_deep() from None
            except ValueError:  # Python reads no whole number of thousands of digits
                raise DataError(f"{self._where()}: a number with thousands of digits. Remove that row.") from None
            if end == len(self._text) and self._more():
                continue  # a number may go on
            letters = self._text[self._at : end]
            if is_garbled_json(letters):
                self._notes.mark("mojibake")
            if is_too_deep(letters, value):
                raise self._too_deep()
            self._at = end
            return value

    def trailing_comma(self) -> DataError:
        """The refusal of a comma that closes a list or an object."""
        return self._refusal(json.JSONDecodeError("Illegal trailing comma", self._text, self._at))

    def _too_deep(self) -> DataError:
        return DataError(f"{self._where()}: nested too deeply for a conversation. Remove that row.")

    def _more(self) -> bool:
        """Let what was read fall behind and take at least as much again as is still to be read; False at the end."""
        piece = next(self._pieces, "")
        if not piece:
            return False
        gone = self._text[: self._at]
        self._column = len(gone) - gone.rfind("\n") if "\n" in gone else self._column + len(gone)
        self._line += gone.count("\n")
        kept = [self._text[self._at :]]
        self._at = self._lines = self._lines_to = 0
        wanted = len(kept[0])
        if wanted > LONGEST:
            self._text = kept[0]
            raise DataError(
                f"{self._where()}: the value that begins there is longer than {LONGEST // 2**20} MB, too long for a "
                "conversation. Is a quote or a bracket not closed?"
            )
        while piece:
            kept.append(piece)
            wanted -= len(piece)
            piece = next(self._pieces, "") if wanted > 0 else ""
        self._text = "".join(kept)
        return True

    def _where(self, at: int | None = None) -> str:
        at = self._at if at is None else at
        line = self._line + self._text.count("\n", 0, at)
        newline = self._text.rfind("\n", 0, at)
        column = at - newline if newline >= 0 else self._column + at
        return f"{self._name}, line {line:,}, column {column:,}"

    def _refusal(self, error: json.JSONDecodeError) -> DataError:
        if error.pos >= len(self._text.rstrip()):
            return self._cut_off()
        return DataError(f"{self._where(error.pos)}: not valid JSON: {explain(self._text, error)}.")

    def _cut_off(self) -> DataError:
        line = self._line + self._text.count("\n", 0, len(self._text.rstrip()))
        return DataError(
            f"{self._name}, line {line:,}: the file ends in the middle of a row; it seems to be truncated. "
            "Download or export it again."
        )
