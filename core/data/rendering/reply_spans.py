"""Where the replies stand in what a chat template writes: seen on the probes, once for each template."""

from dataclasses import dataclass
from typing import Any

from core.data.conversation import Message
from core.data.rendering.chat_template import ChatTemplate, Unrenderable
from core.data.rendering.probes import PROBES
from core.data.rendering.special_tokens import Signs


@dataclass(frozen=True)
class Lead:
    """How far the mark of a reply is from where its question ends: text of the prompt inside it, or text before it."""

    inside: str = ""
    before: str = ""


# By the role of the message before the reply.
Leads = dict[str, Lead]


def leads_of(template: ChatTemplate) -> Leads | None:
    """How each marked place begins, for a template whose marks hold; None where they do not.

    They hold where every reply of the probes has its own, what asks for it is the beginning of the whole text, and
    the place begins there, or always the same few characters from there.
    """
    leads: Leads = {}
    for messages, tools in PROBES.values():
        try:
            found = _leads_in(template, messages, tools)
        except Unrenderable:
            continue
        if found is None:
            return None
        for role, lead in found:
            if leads.setdefault(role, lead) != lead:
                return None
    return leads or None


def _leads_in(
    template: ChatTemplate, messages: list[Message], tools: list[dict[str, Any]] | None
) -> list[tuple[str, Lead]] | None:
    text, marked = template.marked(messages, tools)
    places = joined(marked)
    replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if len(places) != len(replies):
        return None
    leads = []
    for (start, end), index in zip(places, replies, strict=True):
        asked = template.text(messages[:index], tools, ask=True)
        if (
            not text.startswith(asked)
            or messages[index]["content"].split("</think>")[-1].strip() not in text[start:end]
        ):
            return None
        lead = Lead(inside=text[start : len(asked)], before=text[len(asked) : start])
        leads.append((messages[index - 1]["role"], lead))
    return leads


def joined(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Marked places, those that touch as one: two marks around one reply, such as its reasoning and its text."""
    found: list[tuple[int, int]] = []
    for start, end in places:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def stops_of(template: ChatTemplate, signs: Signs) -> dict[bool, str]:
    """What ends a reply that calls a tool (True) and any other (False): what the template writes before the next turn.

    Only for a template that writes nothing behind the newest reply, such as one where the next role's mark ends it, at
    which a chat with these models stops. Empty where replies have an end.
    """
    stops = {False: "", True: ""}
    for calls, name in ((False, "turns"), (True, "tools")):
        messages, tools = PROBES[name]
        word = messages[1]["content"]
        try:
            whole, first = template.text(messages, tools), template.text(messages[:2], tools)
        except Unrenderable:
            continue
        if word:
            bare, behind = first.rstrip().endswith(word), whole.find(word) + len(word)
        else:
            bare, behind = bool(stops[False]) and whole.startswith(first), len(first)
        if bare:
            stops[calls] = whole[behind : signs.end_of_next(whole, behind)]
    return stops


def tail_of(template: ChatTemplate, signs: Signs) -> str:
    """What a template writes only behind the last message, such as a second token that ends the text.

    Where it ends the last reply otherwise than those before, that is no tail.
    """
    messages, tools = PROBES["turns"]
    try:
        whole = template.text(messages, tools)
        upto = [template.text(messages[:count], tools) for count in (2, 4)]
    except Unrenderable:
        return ""
    common = [signs.common(text, whole) for text in upto]
    tails = {text[cut:] for text, cut in zip(upto, common, strict=True)}
    words = (messages[1]["content"], messages[3]["content"])
    ended = [text[:cut].rpartition(word)[1:] for word, text, cut in zip(words, upto, common, strict=True)]
    return tails.pop() if len(tails) == 1 and all(word and end.strip() for word, end in ended) else ""
