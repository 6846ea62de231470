"""What the events of all tabs share: what they return, how they are attached, and what a browser has seen already."""

import json
from typing import Any

from gradio.components import Component

from app.ui.html import busy

# New values by component, as Gradio takes them from a callback; and what a callback is given, by component.
Updates = dict[Any, Any]
Given = dict[Component, Any]
# What one browser has been shown, by name.
Seen = dict[str, Any]
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# A second press while the first is at work does nothing; of many changes only the last counts.
ONCE: dict[str, Any] = {"trigger_mode": "once", **QUIET}
LATEST: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}


def is_new(seen: Seen, name: str, value: Any) -> bool:
    """Whether a browser has not `seen` this value under this name yet; from now on it has."""
    if name in seen and seen[name] == value:
        return False
    seen[name] = value
    return True


def say_at_once(press: Any, place: Component, sentence: str) -> None:
    """Have the page itself answer a press in `place`, before the server has heard of it."""
    press(None, None, place, js=f"() => {json.dumps(busy(sentence))}", **QUIET)


def press_button(element_id: str) -> str:
    """JavaScript that presses the button with that id, once the page knows what it leads to."""
    return f"() => setTimeout(() => document.querySelector('#{element_id}')?.click(), 300)"
