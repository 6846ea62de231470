"""What is asked in a match: the questions that ship, and those of a run's held-out conversations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from core.workspace import PRESETS

FILE = PRESETS / "arena" / "prompts.yaml"
TYPED = "typed"


@dataclass(frozen=True)
class ArenaPrompt:
    """One question: the messages before the reply. `source` is typed, shipped:<category>, or run:<id>."""

    messages: tuple[tuple[str, str], ...]
    source: str = TYPED

    @classmethod
    def of(cls, question: str, source: str = TYPED, system: str = "") -> ArenaPrompt:
        """A question by itself, after a system prompt where there is one."""
        head = (("system", system),) if system.strip() else ()
        return cls((*head, ("user", question)), source)

    @property
    def text(self) -> str:
        """The question as a person reads it: the last message, the ones before it with their roles."""
        if len(self.messages) == 1:
            return self.messages[0][1]
        return "\n\n".join(f"{role}: {content}" for role, content in self.messages)


@dataclass(frozen=True)
class Category:
    """Some of the questions that ship, under one title."""

    name: str
    title: str
    prompts: tuple[str, ...]


@cache
def categories() -> tuple[Category, ...]:
    """The questions that ship, by category."""
    entries: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(Category(entry["category"], entry["title"], tuple(entry["prompts"])) for entry in entries)


def shipped(category: str | None = None) -> list[ArenaPrompt]:
    """The questions that ship, all or those of one category."""
    return [
        ArenaPrompt.of(question, f"shipped:{each.name}")
        for each in categories()
        if category in (None, each.name)
        for question in each.prompts
    ]
