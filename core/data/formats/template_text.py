"""Texts that hold a conversation with a model family's own marks: taken apart into its turns, all of it or nothing.

A text is taken for a family's only where its marks and white space cover all that is not said by somebody: put
together again, head, words and end of every turn are the text. What stands between two turns makes it unsure.
"""

import re
from dataclasses import dataclass

from core.data.conversation import Message

# What tokenizers put at the very beginning and the very end of a text.
_START = re.compile(
    r"(?:<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>|<\|begin▁of▁sentence\|>|<｜begin▁of▁sentence｜>|<BOS_TOKEN>|"
    r"\[gMASK\]|<sop>|<\|endoftext\|>|\s)*"
)
_END_TOKENS = ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<|EOT|>", "<|end|>",
               "<｜end▁of▁sentence｜>", "[|endofturn|]", "<|return|>", "<|call|>", "<end_of_turn>", "<|eot|>",
               "<|eom_id|>")  # fmt: skip
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "model", "chatbot", "gpt", "bot", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "ipython", "observation", "environment", "function", "tool_response"), "tool"),
}
# What Llama 3.1 and later put into every system prompt; they would put it there again.
_DATES = re.compile(r"\A(?:Cutting Knowledge Date: [^\n]*\n)?Today Date: [^\n]*\n*")


@dataclass(frozen=True)
class TemplateFamily:
    """`head` begins a turn and has the speaker as its first group; `end` closes it, if anything does."""

    name: str
    sign: str
    head: re.Pattern[str]
    end: str | None
    lead: bool = False  # whether a system prompt may stand in front without a head

    def split(self, text: str) -> list[Message] | None:
        """The turns of `text`, None where it is not all turns of this family."""
        begin = _START.match(text)
        at = begin.end() if begin else 0
        heads = list(self.head.finditer(text, at))
        lead = text[at : heads[0].start()].strip() if heads else ""
        if not heads or (lead and not self.lead):
            return None
        messages: list[Message] = [{"role": "system", "content": lead}] if lead else []
        for index, head in enumerate(heads):
            role = _ROLES.get(head[1].strip().lower())
            stop = heads[index + 1].start() if index + 1 < len(heads) else len(text)
            words = self._words(text[head.end() : stop], last=stop == len(text))
            if role is None or words is None:
                return None
            self._add(messages, role, words, head)
        return messages

    def _words(self, piece: str, last: bool) -> str | None:
        """What is said between a head and the next; None where something stands behind the end."""
        if self.end is None:
            return without_end(piece).strip()
        words, end, after = piece.partition(self.end)
        return None if without_end(after) or not (end or last) else words.strip()

    def _add(self, messages: list[Message], role: str, words: str, head: re.Match[str]) -> None:
        words = _DATES.sub("", words) if role == "system" else words
        if words or role != "system":
            messages.append({"role": role, "content": words})


class _Harmony(TemplateFamily):
    """gpt-oss: a reply has channels; what stands in `analysis` is its reasoning."""

    def _add(self, messages: list[Message], role: str, words: str, head: re.Match[str]) -> None:
        before = messages[-1] if messages else {}
        if role == "system":  # the first is the template's own, the developer's is what a person wrote
            words = "" if "# Valid channels:" in words else words.removeprefix("# Instructions").strip()
        if role == "assistant" and head[2] == "analysis":
            messages.append({"role": role, "content": "", "reasoning_content": words})
        elif role == "assistant" and before.get("role") == role and not before["content"]:
            before["content"] = words
        else:
            super()._add(messages, role, words, head)


def _family(name: str, sign: str, head: str, end: str | None, lead: bool = False) -> TemplateFamily:
    return TemplateFamily(name, sign, re.compile(head), end, lead)


FAMILIES = (
    _family("ChatML", "<|im_start|>", r"<\|im_start\|>([\w -]{1,40})(?:\n|<\|im_sep\|>)", "<|im_end|>"),
    _family("Llama 3", "<|start_header_id|>", r"<\|start_header_id\|>(\w{1,40})<\|end_header_id\|>", None),
    _family("Llama 4", "<|header_start|>", r"<\|header_start\|>(\w{1,40})<\|header_end\|>", "<|eot|>"),
    _family("Gemma", "<start_of_turn>", r"<start_of_turn>(\w{1,40})\n", "<end_of_turn>"),
    _family("Gemma 4", "<|turn>", r"<\|turn>(\w{1,40})\n", "<turn|>"),
    _family("Granite", "<|start_of_role|>", r"<\|start_of_role\|>(\w{1,40})<\|end_of_role\|>", "<|end_of_text|>"),
    _family("Command R", "<|START_OF_TURN_TOKEN|>",
            r"<\|START_OF_TURN_TOKEN\|><\|(USER|CHATBOT|SYSTEM)_TOKEN\|>", "<|END_OF_TURN_TOKEN|>"),
    _family("DeepSeek", "<｜User｜>", r"<｜(User|Assistant)｜>", None, lead=True),
    _Harmony("gpt-oss", "<|start|>",
             re.compile(r"<\|start\|>(\w{1,40})(?:<\|channel\|>(\w{1,40}))?<\|message\|>"), None),
    _family("EXAONE", "[|user|]", r"\[\|(user|assistant|system|tool)\|\]", None),
    _family("OpenChat", "GPT4 Correct User:", r"GPT4 Correct (User|Assistant):", "<|end_of_turn|>"),
    _family("Zephyr, Phi, GLM", "<|user|>", r"<\|(user|assistant|system|observation|tool)\|>", None),
    _family("OpenAssistant", "<|prompter|>", r"<\|(prompter|assistant|system)\|>", None),
)  # fmt: skip


def split_family(text: str) -> tuple[str, list[Message]] | None:
    """The family whose marks the text holds, and its turns; None where none is sure."""
    for family in FAMILIES:
        if family.sign in text:
            found = family.split(text)
            if found is not None and _can_be_learned(found):
                return family.name, found
    return None


def without_end(text: str) -> str:
    """A text without the tokens at its end that tell a model to stop."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in _END_TOKENS if text.endswith(token, 0, end)), None)
        if token is None:
            return text[:end]
        end -= len(token)


def _can_be_learned(messages: list[Message]) -> bool:
    """Whether somebody asks, and the assistant answers afterwards."""
    asked = next((at for at, each in enumerate(messages) if each["role"] == "user" and each["content"]), None)
    return asked is not None and any(each["role"] == "assistant" for each in messages[asked:])
