"""How a dataset is laid out, said with its evidence: the layout that most of its first rows show."""

import re
from collections import Counter
from dataclasses import dataclass

from core.data.conversation import Row
from core.data.formats.ignored import ignored_answers, what_to_do, why_not
from core.data.formats.layouts import BY_PRECEDENCE, LAYOUTS
from core.data.formats.mapping import mapped_layout
from core.data.formats.row_reading import DatasetLayout, missing, plain_name, plain_row, short
from core.errors import DataError
from core.settings import DataSettings

# Of layouts that fit about as many rows, the first is taken.
_ABOUT_AS_MANY = 0.9


@dataclass(frozen=True)
class Recognised:
    """What the first rows show. `columns` are `{"name", "example"}`, `alternatives` `{"format", "evidence"}`."""

    layout: DatasetLayout
    evidence: str
    columns: list[dict[str, str]]
    alternatives: list[dict[str, str]]

    @property
    def format(self) -> str:
        """The layout's name."""
        return self.layout.name


def recognise_layout(rows: list[Row], settings: DataSettings, file: str) -> Recognised:
    """The layout of `rows`, the first thousand of `file`, or the one that `settings` names.

    Raises DataError where none fits, or where a mapping names columns that are not there.
    """
    plain, columns = [plain_row(row) for row in rows], _columns(rows)
    signs = {layout.name: _count(layout, plain) for layout in BY_PRECEDENCE}
    layout = _layout_of(settings, signs, columns, file, rows)
    evidence = _evidence(signs.get(layout.name) or _count(layout, plain), len(rows), columns)
    if settings.format != "auto":
        evidence = f"set manually; {evidence}"
    others = [
        {"format": name, "evidence": _evidence(found, len(rows), columns)}
        for name, found in sorted(signs.items(), key=lambda each: -each[1].total())
        if found and name != layout.name
    ]
    return Recognised(layout, evidence, columns, others)


def other_layout(row: Row, layout: DatasetLayout) -> str | None:
    """The name of another layout that a row (with plain names) shows, where it does not show `layout`."""
    if layout.sign(row) is not None:
        return None
    return next((other.name for other in BY_PRECEDENCE if other is not layout and other.sign(row) is not None), None)


def _count(layout: DatasetLayout, rows: list[Row]) -> Counter[str]:
    return Counter(sign for row in rows if (sign := layout.sign(row)) is not None)


def _layout_of(
    settings: DataSettings, signs: dict[str, Counter[str]], columns: list[dict[str, str]], file: str, rows: list[Row]
) -> DatasetLayout:
    if settings.format == "mapping":
        layout = mapped_layout(settings.mapping)
        _refuse_unknown_columns(settings, columns, file)
        return layout
    if settings.format != "auto":
        return next(layout for layout in LAYOUTS if layout.name == settings.format)
    most = max(found.total() for found in signs.values())
    if most == 0:
        names = ", ".join(short(column["name"]) for column in columns[:12])
        found = f"Its columns are {names}" if columns else "Its rows are not objects with named values"
        *others, last = (layout.columns for layout in LAYOUTS if layout.columns)
        supported = f"supported are {', '.join(others)}, or {last}"
        raise DataError(f"{file}: its layout is not recognised. {found}; {supported}. {what_to_do(rows)}")
    fitting = [layout for layout in BY_PRECEDENCE if signs[layout.name].total() >= _ABOUT_AS_MANY * most]
    ignored: dict[str, list[str]] = {}
    for layout in fitting:
        ignored[layout.name] = ignored_answers(rows, layout, settings)
        if not ignored[layout.name]:
            return layout
    name = fitting[0].name
    evidence = _evidence(signs[name], len(rows), columns)
    problem = f"it could be {name} ({evidence}), but {why_not(ignored[name], rows)}"
    raise DataError(f"{file}: {problem} If it can be ignored, choose the format {name}.")


def _refuse_unknown_columns(settings: DataSettings, columns: list[dict[str, str]], file: str) -> None:
    known = {plain_name(column["name"]) for column in columns}
    mapping = settings.mapping
    for key in ("turns", "prompt", "context", "reply", "system", "text"):
        name = getattr(mapping, key)
        if name and plain_name(name) not in known:
            names = ", ".join(short(column["name"]) for column in columns[:12])
            raise DataError(f"{file} has no column {name!r}, which data.mapping.{key} names. Its columns are {names}.")


def _evidence(found: Counter[str], rows: int, columns: list[dict[str, str]]) -> str:
    real = {plain_name(column["name"]): column["name"] for column in columns}
    if not found:
        return f"not found in the first {rows:,} rows"
    parts = [f"{words} in {count:,} of {rows:,} rows" for words, count in found.most_common(2)]
    return re.sub(r"`([^`]+)`", lambda match: f"`{real.get(match[1], match[1])}`", "; ".join(parts))


def _columns(rows: list[Row]) -> list[dict[str, str]]:
    """Each column in the order of its first appearance, with the first value that it has."""
    examples: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            if name not in examples or (not examples[name] and not missing(value)):
                examples[name] = "" if missing(value) else short(value)
    return [{"name": name, "example": example} for name, example in examples.items()]
