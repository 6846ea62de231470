"""One file a tab: `build()` returns its components as a frozen dataclass, `wire()` attaches the events."""
