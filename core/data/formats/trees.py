"""Conversations that branch: a tree of replies (OpenAssistant), or nodes that name their parents (ChatGPT's export).

One path through the tree is the conversation; what is beside it is returned, so that it can be reported.
"""

from dataclasses import dataclass, field
from typing import Any

from core.data.conversation import Row
from core.data.formats.row_reading import missing
from core.data.formats.unused import is_empty

_BRANCHES = ("replies", "children")
_NODES = "mapping"
_CURRENT = "current_node"
_TEXTS = ("content", "text", "value", "message")
_OF_A_NODE = {"id", "message", "parent", "children"}
_PATH_OF_NODES = f"{_NODES}[].message"


@dataclass
class Branch:
    """The turns along one way through the tree in `column`; `path` names a turn, `others` are turns beside the way."""

    column: str
    path: str
    turns: list[dict[str, Any]] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)
    used: tuple[str, ...] = ()
    rest: list[dict[str, Any]] = field(default_factory=list)  # what the nodes hold beside their turns


def branch_of(row: Row) -> Branch | None:
    """The way through the row's tree, None where it holds none."""
    nodes = row.get(_NODES)
    if isinstance(nodes, dict) and nodes and all(map(_is_node, nodes.values())):
        return _through_nodes(nodes, row.get(_CURRENT))
    for name, value in row.items():
        if isinstance(value, dict) and (key := _key_of_branches(value)) is not None:
            return _through_replies(name, key, value)
    return None


def nodes_of_history(chat: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Of Open WebUI's `history`, in which every branch stands: the turns that say something; None where it is none."""
    history = chat.get("history")
    nodes = history.get("messages") if isinstance(history, dict) else None
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        return None
    return [node for node in nodes.values() if not is_empty(node.get("content"))]


def _key_of_branches(value: dict[str, Any]) -> str | None:
    says = any(isinstance(value.get(name), str) for name in ("text", "content", "value"))
    return next((key for key in _BRANCHES if isinstance(value.get(key), list)), None) if says else None


def _through_replies(column: str, key: str, root: dict[str, Any]) -> Branch:
    found = Branch(column, f"{column}.{key}[]")
    node: dict[str, Any] | None = root
    while node is not None:
        found.turns.append({name: value for name, value in node.items() if name != key})
        replies = [each for each in node.get(key) or [] if isinstance(each, dict)]
        node = min(replies, key=_rank, default=None)
        found.others += [each for each in replies if each is not node]
    return found


def _rank(reply: dict[str, Any]) -> tuple[bool, float]:
    """The best one first: not deleted, then as people ranked it, then as it stands."""
    rank = reply.get("rank")
    ranked = isinstance(rank, (int, float)) and not missing(rank)
    return bool(reply.get("deleted")), float(rank) if ranked else float("inf")  # type: ignore[arg-type]


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "message" in value and isinstance(value.get("children", []), list)


def _through_nodes(nodes: dict[str, Any], current: Any) -> Branch:
    found = Branch(_NODES, _PATH_OF_NODES, used=(_CURRENT,))
    path = _path_to(nodes, current)
    thoughts: list[dict[str, Any]] = []
    for name in path:
        turn = _turn(nodes[name]["message"])
        if _is_empty_turn(turn):
            found.rest.append({key: value for key, value in turn.items() if key not in ("content", "author")})
            continue
        if turn.pop("thinks", False):
            thoughts += turn["content"]
            continue
        author = turn.get("author")
        if thoughts and (author.get("role") if isinstance(author, dict) else author) == "assistant":
            content = turn["content"]
            turn["content"] = thoughts + (content if isinstance(content, list) else [content])
            thoughts = []
        found.turns.append(turn)
    found.rest += [{key: value for key, value in node.items() if key not in _OF_A_NODE} for node in nodes.values()]
    others = [node["message"] for name, node in nodes.items() if name not in path]
    found.others = [message for message in others if not _is_empty_turn(_turn(message))]
    return found


def _path_to(nodes: dict[str, Any], current: Any) -> dict[str, None]:
    """The names of the nodes from the root to the current one, or to the last that nothing follows."""
    leaves = (name for name in reversed(nodes) if not _has_child(nodes, nodes[name]))
    at = current if isinstance(current, str) and current in nodes else next(leaves, None)
    path: dict[str, None] = {}
    while isinstance(at, str) and at in nodes and at not in path:
        path[at] = None
        at = nodes[at].get("parent")
    return dict.fromkeys(reversed(path))


def _has_child(nodes: dict[str, Any], node: dict[str, Any]) -> bool:
    return any(isinstance(child, str) and child in nodes for child in node.get("children") or [])


def _is_empty_turn(turn: dict[str, Any]) -> bool:
    return all(is_empty(turn.get(name)) for name in _TEXTS)


def _turn(message: Any) -> dict[str, Any]:
    """A node's message as a turn: what it says as text or as parts, `thinks` where it is reasoning alone."""
    if not isinstance(message, dict):
        return {}
    content = message.get("content")
    turn = {name: value for name, value in message.items() if name != "content" and (name, value) != ("weight", 1.0)}
    if not isinstance(content, dict):
        return turn | {"content": content} if "content" in message else turn
    rest = {name: value for name, value in content.items() if name != "content_type"}
    if isinstance(content.get("parts"), list):
        text: Any = [
            {"type": part.get("content_type") or "unknown", **part} if isinstance(part, dict) else part
            for part in rest.pop("parts")
        ]
        if all(isinstance(each, str) for each in text):
            text = "\n\n".join(text)
    elif isinstance(content.get("thoughts"), list):
        steps = [step for step in rest.pop("thoughts") if isinstance(step, dict)]
        text = [{"type": "thinking", "thinking": f"{step.get('content') or ''}\n"} for step in steps]
        rest["thoughts"] = [{name: value for name, value in step.items() if name != "content"} for step in steps]
        turn["thinks"] = True
    else:
        name = next((name for name in ("text", "result", "content") if isinstance(content.get(name), str)), None)
        text = rest.pop(name) if name else [{"type": str(content.get("content_type") or "unknown"), **rest}]
        rest = rest if name else {}
    beside = {f"content.{name}": value for name, value in rest.items() if not is_empty(value)}
    return turn | {"content": text} | beside
