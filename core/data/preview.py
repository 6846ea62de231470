"""One row as the model will see it: made by the same function that training uses."""

from collections.abc import Sequence
from typing import Any

from core.data.conversation import Conversation, Dropped
from core.data.rendering.render import Rendered, Renderer
from core.data.rendering.template import Unrenderable

_LONGEST_GROUP = 8


def show_row(renderer: Renderer, conversation: Conversation, max_length: int) -> dict[str, Any]:
    """A conversation with its tokens, grouped into whole characters; `pieces` is in how many texts it is learned.

    Raises Unrenderable where this model cannot be trained on it.
    """
    pieces: list[Rendered] = []
    for _, result in renderer.render_many([conversation], max_length):
        if isinstance(result, Dropped):
            raise Unrenderable(result.reason)
        pieces.append(result)
    ids = [token for piece in pieces for token in piece.ids]
    weights = [weight for piece in pieces for weight in piece.weights or map(float, piece.trained)]
    return {
        **show_conversation(conversation),
        "tokens": show_tokens(renderer.tokenizer, ids, weights),
        "length": sum(piece.full_length for piece in pieces),
        "trained": sum(weight > 0 for weight in weights),
        "truncated_here": any(piece.truncated for piece in pieces),
        "pieces": len(pieces),
    }


def show_conversation(conversation: Conversation) -> dict[str, Any]:
    """A conversation as it was read: its row, and its messages or its text."""
    return {
        "row": conversation.row,
        "messages": conversation.messages,
        "tools": conversation.tools,
        "text": conversation.text,
    }


def show_tokens(tokenizer: Any, ids: Sequence[int], weights: Sequence[float]) -> list[dict[str, Any]]:
    """`[{"id", "text", "trained"}]`; tokens that only together make a character are one entry, their ids in a list.

    A weight other than 0 and 1 is given as `weight`. The texts joined are the text that all `ids` decode to.
    """
    shown: list[dict[str, Any]] = []
    before: list[int] = []
    waiting: list[int] = []
    for index, token in enumerate(ids):
        waiting.append(token)
        text = _text_after(tokenizer, before, waiting)
        same_mask_follows = index + 1 < len(ids) and weights[index + 1] == weights[index]
        if text.endswith("\ufffd") and same_mask_follows and len(waiting) < _LONGEST_GROUP:
            continue
        shown.append({"id": waiting[0] if len(waiting) == 1 else waiting, "text": text, "trained": weights[index] > 0})
        if weights[index] not in (0.0, 1.0):
            shown[-1]["weight"] = weights[index]
        before, waiting = waiting, []
    return shown


def _text_after(tokenizer: Any, before: list[int], ids: list[int]) -> str:
    """What `ids` add to the text of those before: some tokenizers drop a space only at the very beginning."""
    start, whole = _decoded(tokenizer, before), _decoded(tokenizer, before + ids)
    return whole[len(start) :] if whole.startswith(start) else _decoded(tokenizer, ids)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)) if ids else ""
