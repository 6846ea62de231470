"""Splits as data names them: in the names of files and folders, in a `split` column, in the keys of one JSON object."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from core.data.conversation import Row, Unreadable

# What becomes of rows: trained on, held out to measure by, or left alone.
Use = Literal["train", "held_out", "left_alone"]
# A row, what it is for, and what says so.
SplitRow = tuple[Row | Unreadable, Use, str]

_WORDS: dict[str, Use] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "validate", "dev", "devel", "development"), "held_out"),
    **dict.fromkeys(("eval", "evaluation", "holdout", "heldout"), "held_out"),
    **dict.fromkeys(("test", "testing", "tst", "submission"), "left_alone"),
}
# What stands beside a split's word and says nothing of its own: 'train-00000-of-00002', 'test_sft', 'dev-v1.1'.
_FILLERS = {"of", "set", "split", "data", "dataset", "part", "shard", "sft", "gen", "sample", "samples", "final"}
_FILLERS |= {"clean", "raw", "full", "chat", "prefs", "dpo", "public", "private", "file", "rows", "new"}
_NUMBER = re.compile(r"v?\d+")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_GLUED = re.compile(r"(?<=[a-z])(?:data|set|split)$")  # 'testdata', 'trainset'
# Columns that may name each row's split; but for the first, only where every value is the name of one.
COLUMNS = ("split", "data_split", "dataset_split", "split_name", "partition", "subset", "fold", "set")


def use_of(name: Any) -> Use | None:
    """What a split of that name is for: 'train', 'validation', 'test_sft', 'Dev'; None for a name of nothing known."""
    if not isinstance(name, str) or len(name) > 60:
        return None
    words, bare = _words(name)
    return words if bare else None


def uses_of_files(names: Sequence[str]) -> list[Use]:
    """What each file is for, by its name or its folder's; all are trained on where the names make no splits.

    They make some where a file is for training, by its name or for want of another, and one is not.
    """
    found = [_use_of_file(name) for name in _below(names)]
    if not any(use == "train" for use, _ in found):  # 'alpaca.jsonl' beside 'valid.jsonl', not beside 'my tests.jsonl'
        found = [(use if bare else None, bare) for use, bare in found]
    uses: list[Use] = [use or "train" for use, _ in found]
    return uses if "train" in uses else ["train"] * len(uses)


def is_split_name(name: str) -> bool:
    """Whether a file's name says that it is for validation or test, and nothing else."""
    use, bare = _use_of_file(PurePosixPath(name).name)
    return bare and use is not None and use != "train"


def column_of_splits(rows: Iterable[dict[str, Any]]) -> str | None:
    """The column in which each of `rows` says its split; None where there is none."""
    values: dict[str, list[Any]] = {}
    count = 0
    for row in rows:
        count += 1
        for name in row:
            if name.strip().lower() in COLUMNS:
                values.setdefault(name, []).append(row[name])
    for name in sorted(values, key=lambda each: COLUMNS.index(each.strip().lower())):
        uses = [use_of(value) for value in values[name] if value is not None]
        if uses and all(uses) and (len(values[name]) == count or "split" in name.lower()):
            return name
    return None


def is_of_splits(keys: Sequence[str]) -> bool:
    """Whether the keys of a JSON object are the names of splits, one of them to train on."""
    uses = [use_of(key) for key in keys]
    return len(keys) > 1 and all(uses) and "train" in uses


def _below(names: Sequence[str]) -> list[str]:
    """The names without the folders that all of them lie in: what the dataset itself is called says nothing."""
    paths = [PurePosixPath(name).parts for name in names]
    shared = 0
    while all(len(parts) > shared + 1 for parts in paths) and len({parts[shared] for parts in paths}) == 1:
        shared += 1
    return ["/".join(parts[shared:]) for parts in paths]


def _use_of_file(name: str) -> tuple[Use | None, bool]:
    """What one file is for, and whether its name (or its folder's) says nothing else: the nearest to it decides."""
    path = PurePosixPath(name)
    stem = path.name.split(".")[0] if "." in path.name.lstrip(".") else path.name
    use, bare = _words(stem)
    for folder in reversed(path.parent.parts):
        inner, is_bare = _words(folder.rsplit(".", 1)[0])
        if inner and is_bare and not (use and bare):
            return inner, True
    return use, bare


def _words(name: str) -> tuple[Use | None, bool]:
    """The use that a name's first or last word says; whether there is nothing else in it. None where two are said."""
    tokens = [_GLUED.sub("", token.lower()) for token in _TOKEN.findall(_CAMEL.sub("_", name))]
    telling = [token for token in tokens if token not in _FILLERS and not _NUMBER.fullmatch(token) and token != "v"]
    uses = {_WORDS[token] for token in telling if token in _WORDS}
    if telling == ["sample", "submission"] or tokens[-1:] == ["submission"]:
        return "left_alone", True
    if len(uses) != 1:
        return None, False
    bare = all(token in _WORDS for token in telling)
    if not bare and telling[0] not in _WORDS and telling[-1] not in _WORDS:
        return None, False
    return uses.pop(), bare
