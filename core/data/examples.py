"""One row as the model will see it: the data of the preview, made by the same functions that training uses."""

from __future__ import annotations

from typing import Any

from core.data.formats import Conversations
from core.data.render import RenderedSet, render


def show_row(tokenizer: Any, conversations: Conversations, number: int, max_length: int) -> dict[str, Any]:
    """The usable conversation at or after row `number`: its messages, and its tokens grouped into whole characters."""
    usable = conversations.usable
    chosen = next((each for each in usable if each.row >= number), usable[0])
    rendered = render(tokenizer, chosen.messages, max_length, chosen.row)
    return {
        "row": chosen.row,
        "messages": chosen.messages,
        "tokens": show_tokens(tokenizer, rendered.ids, rendered.trained),
        "length": rendered.full_length,
        "trained": sum(rendered.trained),
        "truncated_here": rendered.truncated,
    }


def show_tokens(tokenizer: Any, ids: list[int], trained: list[bool]) -> list[dict[str, Any]]:
    """`[{"id", "text", "trained"}]`; tokens that only together make a character are one entry, their ids in a list."""
    shown: list[dict[str, Any]] = []
    waiting: list[int] = []
    for index, token in enumerate(ids):
        waiting.append(token)
        text = tokenizer.decode(waiting, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        same_mask_follows = index + 1 < len(ids) and trained[index + 1] == trained[index]
        if text.endswith("\ufffd") and same_mask_follows and len(waiting) < 8:
            continue
        shown.append({"id": waiting[0] if len(waiting) == 1 else waiting, "text": text, "trained": trained[index]})
        waiting = []
    return shown


def summary(rendered: RenderedSet, conversations: Conversations) -> dict[str, Any]:
    """The counts of a dataset: `rows = usable + dropped`, tokens in all and trained on."""
    lengths = sorted(row.full_length for row in rendered.usable)
    return {
        "format": conversations.format,
        "evidence": conversations.evidence,
        "rows": rendered.rows,
        "usable": len(rendered.usable),
        "dropped": [{"row": drop.row, "reason": drop.reason} for drop in rendered.dropped],
        "truncated": rendered.truncated,
        "tokens": {
            "total": sum(len(row.ids) for row in rendered.usable),
            "trained": sum(sum(row.trained) for row in rendered.usable),
            "p50": lengths[len(lengths) // 2] if lengths else 0,
            "p95": lengths[int(len(lengths) * 0.95)] if lengths else 0,
            "max": lengths[-1] if lengths else 0,
        },
    }
