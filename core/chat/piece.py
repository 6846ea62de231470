"""One look at a reply that grows: what both ends of the chat pass on. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """What has been said so far; the figures are final in the last piece, which is `done`. Times in seconds."""

    text: str
    tokens: int
    tokens_per_second: float
    first_token_seconds: float
    done: bool = False
