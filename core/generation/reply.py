"""One look at a reply that grows: what both ends of the chat pass on. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PartialReply:
    """What has been said so far; the figures are final in the last piece, which is `done`. Times in seconds.

    `prompt_tokens` of the `context_tokens` that the model takes (0: its files do not say) were there before the reply.
    `ends` says in the last piece why it is the last: 'end' of turn, 'stop' text, 'length', 'context' full, 'asked';
    only that one holds the `ids` of the reply's tokens.
    """

    text: str
    tokens: int
    tokens_per_second: float
    first_token_seconds: float
    done: bool = False
    prompt_tokens: int = 0
    context_tokens: int = 0
    ends: str = ""
    ids: tuple[int, ...] = ()
