"""What the server remembers for the Chat tab, all of it over one chat process."""

from __future__ import annotations

from dataclasses import dataclass

from app.chat.compare import Comparison
from app.chat.conversation import ChatConversation
from app.chat.serving import ServingSession
from app.context import Context


@dataclass(frozen=True)
class ChatSession:
    """The conversation, the comparison, and the endpoint for other programs."""

    conversation: ChatConversation
    comparison: Comparison
    serving: ServingSession

    @classmethod
    def open(cls, context: Context) -> ChatSession:
        """As it was left in this workspace."""
        workspace, client = context.workspace, context.chat
        return cls(
            ChatConversation.open(workspace, client),
            Comparison.open(workspace, client),
            ServingSession(workspace, client),
        )
