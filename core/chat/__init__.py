"""Chat: a process of its own that holds a base and its adapter, and the client that talks to it."""
