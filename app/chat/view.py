"""The Chat tab as it stands: the conversation, and the columns of one question to several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from app.chat import html as chat_html
from app.chat.compare import SideBySide
from app.chat.conversation import ChatConversation
from app.ui import html

if TYPE_CHECKING:
    from app.chat.layout import ChatTab

Updates = dict[Any, Any]


def render(tab: ChatTab, talk: ChatConversation) -> Updates:
    """The conversation as it stands."""
    status = html.busy(talk.state) if talk.state else html.error_box(talk.error) if talk.error else ""
    free = not talk.answering
    replied = any(turn.role == "assistant" for turn in talk.turns)
    return {
        tab.chatbot: chat_html.messages(talk.turns),
        tab.status: status,
        tab.stop: gr.Button(visible=talk.busy),
        tab.again: gr.Button(interactive=bool(talk.turns) and free),
        tab.undo: gr.Button(interactive=bool(talk.turns) and free),
        tab.send: gr.Button(interactive=free),
        tab.to_data: gr.Button(interactive=replied and free),
        tab.context: chat_html.context_meter(*talk.context),
    }


def render_sides(tab: ChatTab, sides: SideBySide) -> Updates:
    """The columns as they stand."""
    part = tab.compare
    status = html.busy(sides.state) if sides.state else html.error_box(sides.error) if sides.error else ""
    names = [column.label for column in sides.columns]
    updates: Updates = {
        part.status: status,
        part.stop: gr.Button(visible=sides.busy),
        part.ask: gr.Button(interactive=not sides.busy),
        part.differs: chat_html.differences(names, sides.differs),
    }
    for at, column in enumerate(part.columns):
        there = sides.columns[at] if at < len(sides.columns) else None
        updates[column] = gr.Column(visible=there is not None)
        said = there is not None and (there.text or there.note)
        head = html.error_box(there.error) if there is not None and there.error else ""
        updates[part.heads[at]] = f"<h4>{html.text(there.label)}</h4>{head}" if there is not None else ""
        updates[part.replies[at]] = chat_html.reply(there.text, there.note) if there is not None and said else ""
    return updates
