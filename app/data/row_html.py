"""One row of a dataset as HTML: as chat and as tokens beside each other, or why it is left out. All of it escaped."""

import json
from typing import Any

from app.data.findings_html import error_in_words
from app.ui.html import number, text
from app.ui.tokens import KEYS, tokens_html

SHOWN_CHARACTERS = 20_000
SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def row(found: dict[str, Any] | None) -> str:
    """The row that is shown; empty text before there is one."""
    if found is None:
        return ""
    title = f"<h3>Row {number(found['row'])}{' of ' + number(found['rows']) if found.get('rows') else ''}</h3>"
    if found.get("reason"):
        why = error_in_words(f"This row is not used: {found['reason']}")
        return (
            f'<section class="nb-card nb-row"><header><span class="nb-state nb-failed">Left out</span><div>{title}'
            f"</div></header>{why}<h4>Raw row</h4>{raw(found)}</section>"
        )
    tokens = found.get("tokens")
    shown = tokens_html(tokens) if tokens else '<p class="nb-muted">The tokens have not been counted yet.</p>'
    return (
        f'<section class="nb-card nb-row"><header><div>{title}<small>{_counts(found)}</small></div>'
        f'{_codes(found)}</header><div class="nb-two"><div><header><h4>As chat</h4></header>{chat(found)}</div>'
        f"<div><header><h4>As tokens</h4>{KEYS}</header>{shown}</div></div>"
        '<details class="nb-more"><summary>Raw row</summary>'
        f"{raw(found)}</details></section>"
    )


def _counts(found: dict[str, Any]) -> str:
    if not found.get("tokens"):
        return ""
    cut = " · cut at the limit" if found.get("truncated_here") else ""
    return f"{number(found['length'])} tokens · {number(found['trained'])} count in the loss{cut}"


def _codes(found: dict[str, Any]) -> str:
    tags = "".join(f'<span class="nb-tag">{text(code.replace("-", " "))}</span>' for code in found.get("findings", ()))
    return f'<span class="nb-tags">{tags}</span>' if tags else ""


def chat(found: dict[str, Any]) -> str:
    """The row as a conversation, or as the plain text that it is."""
    if found.get("text") is not None and not found.get("messages"):
        plain = f'<article class="nb-said-text"><p>{_long(found["text"])}</p></article>'
        return f'<div class="nb-bubbles" tabindex="0">{plain}</div>'
    bubbles = "".join(_bubble(message) for message in found.get("messages") or ())
    tools = found.get("tools")
    offered = f"<details><summary>{len(tools)} tools available</summary>{_json(tools)}</details>" if tools else ""
    return f'<div class="nb-bubbles" tabindex="0">{offered}{bubbles}</div>'


def _bubble(message: dict[str, Any]) -> str:
    role = message["role"]
    who = SPEAKERS.get(role, role)
    weight = message.get("weight")
    aside = f" <small>weight {weight:g} in the loss</small>" if weight is not None and weight != 1 else ""
    name = f" <small>{text(message['name'])}</small>" if message.get("name") else ""
    thought = message.get("reasoning_content")
    reasoning = f'<p class="nb-thought">{_long(thought)}</p>' if thought else ""
    calls = f"{_json(message['tool_calls'])}" if message.get("tool_calls") else ""
    content = f"<p>{_long(message['content'])}</p>" if message.get("content") else ""
    return f'<article class="nb-said-{text(role)}"><b>{text(who)}</b>{name}{aside}{reasoning}{content}{calls}</article>'


def raw(found: dict[str, Any]) -> str:
    """The row as it was read."""
    value = found.get("raw")
    return f'<pre class="nb-raw">{_long(value)}</pre>' if isinstance(value, str) else _json(value)


def mapped(found: dict[str, Any] | None) -> str:
    """For beside the mapping by hand: the file's row above, what becomes of it below."""
    if found is None:
        return '<p class="nb-muted">The row appears here once the columns are chosen.</p>'
    made = error_in_words(found["reason"]) if found.get("reason") else chat(found)
    return f"<h4>Row {number(found['row'])} becomes</h4>{made}<h4>from</h4>{raw(found)}"


def _json(value: object) -> str:
    return f'<pre class="nb-raw">{_long(json.dumps(value, ensure_ascii=False, indent=1, default=str))}</pre>'


def _long(value: str) -> str:
    rest = len(value) - SHOWN_CHARACTERS
    end = f'<i class="nb-muted"> … and {number(rest)} more characters</i>' if rest > 0 else ""
    return text(value[:SHOWN_CHARACTERS]) + end
