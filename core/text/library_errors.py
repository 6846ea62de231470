"""What a library's error says, in the one line that says it. Imports nothing but the standard library.

The first line is often only a heading ("Error(s) in loading state_dict for X:"), or points at what was logged ("look at
the above report!"), and the fact is below it, in the log, or in the error that this one was raised from.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from typing import Any

MOST = 300
# Other threads may still say something after the error that ends their process.
LAST_LINES = 5
# As much of a message is read: some hold a whole file.
_READ = 20_000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What torch prints of a module, between a bracket that ends a line and the one that begins another.
_INSIDES = re.compile(r"\(\n(?:[ \t].*\n)*[ \t]*\)")
_SHAPE = re.compile(r"torch\.Size\(\[([\d, ]*)\]\)")
_SECRETS = (
    (re.compile(r"\b(?:hf|gh[opsu]|nb|sk|xox[a-z])[_-][\w-]{10,}"), "…"),
    (re.compile(r"(?i)\b(bearer|basic|token|password|api[_-]?key)([ =:]+)[^\s,;'\"]{6,}"), r"\1\2…"),
    (re.compile(r"(\w://)[^/\s@]+@"), r"\1"),
    (re.compile(r"(\w://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?…"),
)
# A file of this machine is told by its name: where it lies is for nobody else.
_PATH = re.compile(r"(?<![\w:/.<])(?:/[\w.~@%+ -]*[\w.~@%+-])*?/[\w.~@%+-]+(?:/[\w.~@%+-]+)+|\b[A-Za-z]:\\[^\s'\",;]+")
_HEADING = re.compile(
    r"[:(]$|^\d+ validation errors? for|^while (parsing|scanning|constructing|composing)|^Traceback |^IMPORTANT:"
    r"|^\(\d+\) |^File \"|^in \"|^\^+$|^-+$",
)
# A heading that names what is missing is what is wrong: below it stands how to install it.
_NEEDS = re.compile(r"(?i)\brequires?\b|\bis required\b")
_MISSING = re.compile(r"(\w+) requires the (\w+) library but it was not found")
_VAGUE = re.compile(
    r"(?i)\babove report|look(ing)? (at the )?above|see (the )?(original )?errors?\b.*(above|below)"
    r"|^an error occurred\b|because of the following error|^(unknown|internal) error$"
)
_STRONG = re.compile(
    r"(?i)size mismatch|missing key|unexpected key|\brequires?\b|\bneed(s|ed)?\b|install|no module named"
)
_TYPE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Warning): (?=\S)")
# bitsandbytes' C code before it calls exit(1) (0.50.2, csrc/compat.cuh, BNB_CHECK_RETURN).
_ENDED_BY_BITSANDBYTES = re.compile(r"^Error (.+) at line \d+ in file \S*csrc[/\\]\S+$")
# What is said so that only the library's authors know what it means: what it says, in plain words.
_PLAIN = (
    (
        re.compile(r"did not match any variant of untagged enum (?:Py)?(\w+?)(?:Type)?(?:Untagged|Wrapper|Helper)?\b"),
        r"tokenizer.json contains a \1 that the installed package tokenizers does not know: it was written by a newer "
        r"one, or is damaged",
    ),
    (
        re.compile(r"(?:Error while deserializing|deserializing) header: (.+)|\bMetadataIncompleteBuffer\b.*"),
        r"a safetensors file is damaged, truncated or incomplete (\g<0>)",
    ),
    (
        re.compile(r"^Couldn't instantiate the backend tokenizer\b.*"),
        "there is no readable tokenizer.json, and building one from older files needs the package sentencepiece or "
        "tiktoken, which is not installed",
    ),
)


class Listening(logging.Handler):
    """Hears what `library` warns of while it works: some errors only point at that."""

    def __init__(self, library: str) -> None:
        super().__init__(logging.WARNING)
        self._logger, self._lines = logging.getLogger(library), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's lines."""
        self._lines += _ANSI.sub("", record.getMessage()).splitlines()

    def __enter__(self) -> Listening:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def report(self) -> str | None:
        """What transformers' report on loading says of the first tensor that does not fit; None where it says nothing.

        Its lines are `name | MISMATCH | Reinit due to size mismatch - ckpt: … vs model:…`.
        """
        rows = [[part.strip() for part in line.split("|")] for line in self._lines]
        odd = [row for row in rows if len(row) >= 3 and row[1] in ("MISMATCH", "CONVERSION")]
        if not odd:
            return None
        name, _, why = odd[0][:3]
        for old, new in (("Reinit due to ", ""), ("ckpt: ", "its file has "), (" vs model:", ", the model ")):
            why = why.replace(old, new)
        return f"{name}: {why}{_more(len(odd))}"

    def missing(self) -> str | None:
        """The package for want of which the library tried another way, and failed on that; None where there is none."""
        found = next((match for match in map(_MISSING.search, self._lines) if match), None)
        return f"{found[1]} requires the package {found[2].lower()}, which is not installed" if found else None


def telling_line(error: BaseException, heard: Listening | None = None, kind: bool = False) -> str:
    """The line of `error`, or of what it was raised from, that says what is wrong; without the full stop at its end.

    `heard` is what the library logged meanwhile. `kind`: begins with the error's class, as it does anyway where the
    message is no sentence. No escape codes, at most MOST letters, no path of this machine, and nothing like a key.
    """
    for each in _chain(error):
        message = _words(each)
        logged = heard and (heard.report() if _VAGUE.search(message) else heard.missing())
        line = _clean(logged or _line(message) or "")
        if line:
            return _clean(f"{type(each).__name__}: {line}{_where(each)}") if kind or _is_bare(each) else line
    first = _clean(next(iter(str(error)[:_READ].strip().splitlines()), ""))
    return _clean(f"{type(error).__name__}{f': {first}' if first else _where(error)}")


def telling_line_of(output: str, nothing: str) -> str:
    """As `telling_line`, of what a process wrote before it ended; `nothing` where that was nothing.

    Of a traceback it is the error, with its kind; else the last line.
    """
    text = _ANSI.sub("", output[-_READ:]).strip()
    _, traced, after = text.rpartition("Traceback (most recent call last):\n")
    if traced:
        error = re.split(r"\n(?=\S)", after, maxsplit=1)[-1]
        kind = _TYPE.match(error)
        line = _line(error[kind.end() :] if kind else error)
        if line:
            return _clean(f"{kind.group() if kind else ''}{line}")
    return _clean((text.splitlines() or [nothing])[-1]) or nothing


def ended_by_bitsandbytes(output: str) -> str | None:
    """CUDA's error for which bitsandbytes ended a process, by the last lines of its output; None where it did not."""
    found = [_ENDED_BY_BITSANDBYTES.match(line.strip()) for line in _ANSI.sub("", output).splitlines()[-LAST_LINES:]]
    return next((_clean(match[1]) for match in reversed(found) if match), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came from. An error may come to stand in its own chain."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _line(text: str) -> str | None:
    """The line of a message that says what; None where all of it only points somewhere else."""
    text = _INSIDES.sub("(…)", _ANSI.sub("", text[:_READ])).strip()
    _, traced, after = text.rpartition("Traceback (most recent call last):\n")
    if traced:  # of an error within the error, whose own words come after its frames
        text = re.split(r"\n(?=\S)", after, maxsplit=1)[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern, plain in _PLAIN:
        found = next((match for match in map(pattern.search, lines) if match), None)
        if found:
            return found.expand(plain)
    telling = [line for line in lines if (not _HEADING.search(line) or _NEEDS.search(line)) and not _VAGUE.search(line)]
    if not telling:
        return None
    if telling[0] == lines[0]:
        return lines[0].rstrip(":")
    line = next((line for line in telling if _STRONG.search(line)), telling[0])
    kind = line.partition(" for ")[0]
    alike = sum(other.startswith(f"{kind} for ") for other in telling) if kind != line else 1
    return _TYPE.sub("", line).rstrip(" .") + _more(alike)


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _words(error: BaseException) -> str:
    """The error's message; that of a KeyError is put in quotes by Python, be it a key or a sentence."""
    own = error.args[0] if isinstance(error, KeyError) and error.args else None
    return own if isinstance(own, str) and " " in own else str(error)


def _is_bare(error: BaseException) -> bool:
    """Whether the message is no sentence that says what is wrong with a file: a key that is not there, a wrong type."""
    if isinstance(error, LookupError):
        return " " not in _words(error)
    return isinstance(error, (NotImplementedError, AttributeError, TypeError))


def _where(error: BaseException) -> str:
    """The line of code where a bare error arose, as it names what was looked for: `ROPE_INIT_FUNCTIONS[kind]`."""
    if str(error) and not (isinstance(error, (LookupError, TypeError)) and _is_bare(error)):
        return ""
    frames: list[Any] = [each for each in traceback.extract_tb(error.__traceback__) if each.name != "__getitem__"]
    return f" in `{frames[-1].line[:100]}`" if frames and frames[-1].line else ""


def _clean(line: str) -> str:
    line = " ".join(_SHAPE.sub(r"(\1)", _CONTROL.sub(" ", _ANSI.sub("", line[: 10 * MOST]))).split())
    for secret, instead in _SECRETS:
        line = secret.sub(instead, line)
    line = _PATH.sub(lambda found: re.split(r"[/\\]", found.group())[-1], line)
    return line.rstrip(". ") if len(line) <= MOST else line[: MOST - 1].rstrip() + "…"
