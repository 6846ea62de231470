"""The patterns by which an adapter names its layers: PEFT matches them with Python's `re`, which may take for ever.

Which modules a pattern means is for PEFT to say. Here it is only made sure that saying so takes no time: each is tried
in a process of its own under a watchdog (pattern_trial.py), as PEFT will ask, on the names at hand and on made-up
ones that bring hostile patterns to their worst. Imports no torch.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from core.errors import ModelError

TRIAL = Path(__file__).with_name("pattern_trial.py")
# A model of 80 layers takes the patterns that Unsloth and ms-swift write 4 ms.
SECONDS = 1.5
_LONGEST, _MOST_PATTERNS, _MOST_NAMES = 20_000, 2_000, 50_000
_LONG, _MOST_WORDS = 100, 200
# A name, whole or its end, as nearly all are: there is nothing to try.
_NAME = re.compile(r"\^?[\w-]*(?:\\?\.[\w-]+)*\$?")
# How PEFT (0.21) matches each setting: in which others it puts the pattern.
_AROUND = {
    "target_modules": "{}",
    "exclude_modules": "{}",
    "modules_to_save": r"(^|.*\.){}($|\..*)",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
    "rank_pattern": r"(.*\.)?({})$",
    "alpha_pattern": r"(.*\.)?({})$",
}


def refuse_endless_patterns(config: dict[str, Any], name: str, modules: Iterable[str] = ()) -> None:
    """Raise ModelError where the adapter `name` names its layers by an invalid pattern, or cannot be matched in time.

    `modules` are names that PEFT will match: those of the base, or of the layers that the adapter's file is for.
    """
    tried: dict[str, str] = {}
    for key in (*_AROUND, "target_parameters"):
        for given in _given(config, key, name):
            if _is_pattern(config, key) and not _NAME.fullmatch(given):
                tried[_AROUND[key].format(given)] = key
    if len(tried) > _MOST_PATTERNS or any(len(pattern) > _LONGEST for pattern in tried):
        _refuse(next(iter(tried.values())), name)
    if tried:
        _try(tried, name, list(dict.fromkeys(modules)))


def _given(config: dict[str, Any], key: str, name: str) -> list[str]:
    """The texts of a setting, which is one, a list of them, or a mapping from them. Raises ModelError."""
    value, mapping = config.get(key), key in ("rank_pattern", "alpha_pattern")
    if value is None:
        return []
    if not isinstance(value, dict if mapping else (str, list)):
        _refuse(key, name)
    texts = [value] if isinstance(value, str) else list(value)
    if len(texts) > (_MOST_PATTERNS if mapping else _MOST_NAMES) or not all(isinstance(each, str) for each in texts):
        _refuse(key, name)
    return texts


def _is_pattern(config: dict[str, Any], key: str) -> bool:
    """Whether the setting's texts are patterns to PEFT; in some, those of a list are ends of names."""
    if key in ("target_modules", "exclude_modules"):
        return isinstance(config[key], str)
    return key in _AROUND


def _refuse(key: str, name: str, why: str = "by a pattern that takes too long to match") -> NoReturn:
    raise ModelError(f"The adapter {name} names its layers {why} ({key}). Use another adapter.")


def _try(patterns: dict[str, str], name: str, modules: list[str]) -> None:
    """Have all `patterns`, each with the setting that it is from, tried elsewhere. Raises ModelError."""
    # What all but matches takes a pattern longest: to find that it does not.
    names = [*modules, *(f"{module}!" for module in modules), *_worst(list(patterns))]
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(TRIAL)],
        input=json.dumps({"patterns": list(patterns), "names": names, "seconds": SECONDS}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        key = list(patterns.values())[int((done.stdout.split() or ["0"])[-1])]
        _refuse(key, name, *(["by an invalid pattern"] if done.returncode == 2 else []))


def _worst(patterns: list[str]) -> Iterator[str]:
    """The words of the patterns over and over, and then something else: where repeats within repeats are tried all."""
    words = dict.fromkeys(word for pattern in patterns for word in re.findall(r"[A-Za-z0-9]+|_+", pattern))
    for word in ["a", "0", "a.", *list(words)[:_MOST_WORDS]]:
        yield (word * _LONG)[:_LONG] + "!"
