"""Sizes as people write them: read them, and write them back; spans of time too."""

import re

from core.errors import RecipeError

GIB = 2**30
MIB = 2**20

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"": GIB, "kib": 2**10, "mib": MIB, "gib": GIB, "tib": 2**40}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*|%)\s*", re.IGNORECASE)


def parse_size(text: str | float, total_bytes: int) -> int:
    """Bytes meant by `text`: `8` and `8GiB` are 2**33, `8GB` is 8 * 10**9, `80%` is of `total_bytes`.

    Raises RecipeError where it cannot be read or is not above zero.
    """
    match = _SIZE.fullmatch(str(text))
    unit = match[2].lower() if match else None
    if match is None or (unit != "%" and unit not in _UNITS):
        raise RecipeError(f"budget: {text!r} is not a size. Write 8, 8GiB, 8GB or 80%; a bare number is GiB.")
    number = float(match[1])
    size = total_bytes * number / 100 if unit == "%" else number * _UNITS[str(unit)]
    if int(size) <= 0:
        raise RecipeError(f"budget: {text!r} leaves no memory. Allowed: above 0, such as 2GiB or 80%.")
    return int(size)


def show_size(size: float) -> str:
    """`size` in bytes as a person reads it: '512 MiB', '7.25 GiB'."""
    if size < GIB:
        return f"{size / MIB:.0f} MiB"
    return f"{size / GIB:.2f} GiB"


def show_bytes(size: float) -> str:
    """`size` in bytes as disks and networks count it, in powers of ten: '64 MB', '3.1 GB'."""
    if size < 10**6:
        return f"{size / 10**3:.0f} kB"
    if size < 10**9:
        return f"{size / 10**6:.{0 if size >= 10**7 else 1}f} MB"
    return f"{size / 10**9:.1f} GB"


def show_duration(seconds: float) -> str:
    """A time span as a person reads it: '42 s', '3 min 05 s', '2 h 07 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
