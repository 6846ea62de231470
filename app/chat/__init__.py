"""The Chat tab: the conversation, models side by side, serving."""
