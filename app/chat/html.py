"""A conversation as it is shown: Markdown in which HTML is never run, thoughts folded, how full the context is."""

import re
from typing import Any

from app.chat.conversation import Turn
from app.ui.html import number, text
from app.ui.markdown import literal, plain

_THOUGHT = re.compile(r"<think>(.*?)(</think>|\Z)", re.DOTALL)
# From here on the bar of the context warns.
NEARLY_FULL = 0.85


def split_thought(content: str) -> tuple[str, str, bool]:
    """(what the model thought, what it says, whether it still thinks).

    Where the template opens the thought itself, the reply begins within it.
    """
    if "</think>" in content and "<think>" not in content:
        content = f"<think>{content}"
    thoughts = [match[1].strip() for match in _THOUGHT.finditer(content)]
    thinks = any(not match[2] for match in _THOUGHT.finditer(content))
    return "\n\n".join(thought for thought in thoughts if thought), _THOUGHT.sub("", content).strip(), thinks


def messages(turns: list[Turn]) -> list[dict[str, Any]]:
    """The turns for gr.Chatbot. A thought is a message of its own, folded."""
    return [message for turn in turns for message in _messages(turn)]


def turn_at(turns: list[Turn], shown: int) -> int | None:
    """Which turn of the person's the message at place `shown` of `messages` is; None where it is none of theirs."""
    owners = [at for at, turn in enumerate(turns) for _ in _messages(turn)]
    at = owners[shown] if 0 <= shown < len(owners) else None
    return at if at is not None and turns[at].role == "user" else None


def _messages(turn: Turn) -> list[dict[str, Any]]:
    if turn.role != "assistant":
        return [{"role": turn.role, "content": literal(turn.content)}]
    thought, answer, thinks = split_thought(turn.content)
    note = f"\n\n<small>{plain(turn.note)}</small>" if turn.note else ""
    message = {"role": turn.role, "content": f"{literal(answer) or '…'}{note}"}
    if not thought:
        return [message]
    fold = {"title": "Thinking…" if thinks else "Thought", "status": "pending" if thinks else "done"}
    return [{"role": turn.role, "content": literal(thought), "metadata": fold}, message]


def reply(content: str, empty: str = "…") -> str:
    """A reply in a column of its own, as Markdown in which HTML is text: the thought folded over it."""
    thought, answer, _ = split_thought(content)
    fold = f"<details><summary>Thought</summary>\n\n{literal(thought)}\n\n</details>\n\n" if thought else ""
    return f"{fold}{literal(answer) or empty}"


def context_meter(used: int, of: int) -> str:
    """How much of the context is full: '312 of 2,048 tokens'. Empty while nothing is known."""
    if not used:
        return ""
    if not of:
        return f'<div class="nb-context"><span>{number(used)} tokens so far</span></div>'
    share = min(1.0, used / of)
    full = " nb-full" if share > NEARLY_FULL else ""
    answer = f"{number(used)} of {number(of)} tokens"
    more = ". The next messages may not fit: clear the conversation, or undo some messages." if full else ""
    return (
        f'<div class="nb-context{full}" title="Context used"><i><b style="width:{share:.1%}"></b></i>'
        f"<span>{answer}{more}</span></div>"
    )


def differences(names: list[str], rows: list[tuple[str, list[str]]]) -> str:
    """The settings that differ between the columns, and nothing else."""
    if not rows:
        return ""
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    lines = []
    for key, values in rows:
        cells = "".join(f"<td>{text(value)}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{text(key)}</th>{cells}</tr>')
    body = "".join(lines)
    top = f"<thead><tr><th>What differs</th>{head}</tr></thead>"
    return f'<table class="nb-table nb-compared">{top}<tbody>{body}</tbody></table>'
