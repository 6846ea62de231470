"""Rows as rendering leaves them: made of numbers alone, or of one conversation."""

from __future__ import annotations

from core.data.conversation import Conversation, Dropped
from core.data.rendering.render import Rendered, Renderer
from core.data.rendering.template import Unrenderable


def rendered_rows(*lengths: int) -> list[Rendered]:
    """A row of so many tokens for each of `lengths`; all but its first is trained."""
    return [Rendered(i, list(range(3, 3 + n)), [False] + [True] * (n - 1), n) for i, n in enumerate(lengths)]


def render_one(renderer: Renderer, conversation: Conversation, max_length: int) -> Rendered:
    """One conversation rendered; of one in several texts the first. Raises Unrenderable."""
    _, result = next(renderer.render_many([conversation], max_length))
    if isinstance(result, Dropped):
        raise Unrenderable(result.reason)
    return result
