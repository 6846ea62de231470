"""Reasoning that stands within the reply as a folded block of HTML, as Open WebUI writes it."""

import html
import re

from core.data.conversation import Message

_BLOCK = re.compile(
    r'\A\s*<details type="reasoning"[^>]{0,400}>\s*(?:<summary>[^<]{0,200}</summary>)?([^<]*(?:<(?!/details>)[^<]*)*)'
    r"</details>\s*"
)
BEGIN = "<details "


def unfold(message: Message) -> bool:
    """Take the block at the beginning of a reply for its reasoning; False where there is none."""
    found = _BLOCK.match(message["content"])
    if found is None or "reasoning_content" in message:
        return False
    lines = found[1].strip().splitlines()
    if lines and all(line.startswith("&gt;") for line in lines if line.strip()):
        lines = html.unescape("\n".join(lines)).splitlines()
    thought = "\n".join(line.removeprefix(">").removeprefix(" ") if line.startswith(">") else line for line in lines)
    message["content"] = message["content"][found.end() :]
    if thought.strip():
        message["reasoning_content"] = thought
    return True
