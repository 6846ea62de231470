"""The Chat tab as it stands: the conversation, and the columns of one question to several."""

import gradio as gr

from app.chat import html as chat_html
from app.chat.compare import Comparison
from app.chat.conversation import ChatConversation
from app.chat.layout import ChatLayout, ComparePart
from app.ui import html
from app.ui.updates import Updates


def render(layout: ChatLayout, conversation: ChatConversation) -> Updates:
    """The conversation as it stands."""
    turns, free = conversation.turns, not conversation.answering
    replied = any(turn.role == "assistant" for turn in turns)
    return {
        layout.chatbot: chat_html.messages(turns),
        layout.status: conversation.html(),
        layout.stop: gr.Button(visible=conversation.busy),
        layout.again: gr.Button(interactive=bool(turns) and free),
        layout.undo: gr.Button(interactive=bool(turns) and free),
        layout.send: gr.Button(interactive=free),
        layout.to_data: gr.Button(interactive=replied and free),
        layout.context: chat_html.context_meter(*conversation.context),
    }


def render_comparison(part: ComparePart, comparison: Comparison) -> Updates:
    """The columns as they stand."""
    names = [column.label for column in comparison.columns]
    updates: Updates = {
        part.status: comparison.html(),
        part.stop: gr.Button(visible=comparison.busy),
        part.ask: gr.Button(interactive=not comparison.busy),
        part.differs: chat_html.differences(names, comparison.differs),
    }
    for at, place in enumerate(part.columns):
        there = comparison.columns[at] if at < len(comparison.columns) else None
        updates |= {place.column: gr.Column(visible=there is not None), place.head: "", place.reply: ""}
        if there is not None:
            error = html.error_box(there.error) if there.error else ""
            updates[place.head] = f"<h4>{html.text(there.label)}</h4>{error}"
            updates[place.reply] = chat_html.reply(there.text, there.note) if there.text or there.note else ""
    return updates
