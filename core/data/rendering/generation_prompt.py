"""How a chat template asks for a reply, and whether what it writes as a reply goes on from that.

Some ask for more than any reply that they write begins with: `<think>` and a line break, of which the replies in a
conversation have nothing. What is learned then is not what a chat asks for. Two ways out: the template's generation
prompt is cut to what every reply begins with, which is seen by trying (`fitted`), or each reply is learned right
behind the whole prompt, its thinking block closed (`Asking.reply_behind`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from core.data.conversation import Message
from core.data.rendering.chat_template import ChatTemplate, Unrenderable, once_reasoned
from core.data.rendering.probes import PROBES
from core.data.rendering.special_tokens import Signs

_OPENED = re.compile(r"<([a-z_]+)>\s*$")
# A model whose prompt has opened the block says only its end.
_THOUGHT = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)


@dataclass(frozen=True)
class Trial:
    """One reply of a probe: the text that asks for it, the text before, and the text that ends with it."""

    asked: str
    before: str
    answered: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None

    @property
    def after_tool(self) -> bool:
        """Whether it answers a tool."""
        return bool(self.messages[-1]["role"] == "tool")

    @property
    def prompt(self) -> str | None:
        """What is added to ask for it; None where the text before is written otherwise when asked."""
        return self.asked[len(self.before) :] if self.asked.startswith(self.before) else None


def trials(template: ChatTemplate, tail: str = "") -> Iterator[Trial]:
    """One for each reply of the probes that the template takes.

    `tail` is what it writes behind the last message where it does not ask for a reply.
    """
    for messages, tools in PROBES.values():
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = messages[:index]
            try:
                asked, plain = template.text(before, tools, ask=True), template.text(before, tools)
                answered = template.text(messages[: index + 1], tools)
            except Unrenderable:
                continue
            yield Trial(asked, plain.removesuffix(tail), answered, before, tools)


@dataclass(frozen=True)
class Asking:
    """The generation prompt of a template, after a tool's turn (True) and after any other (False).

    `gaps` is what of it no reply begins with; `missing` what every reply begins with beyond it, which is the mark of
    the role. `lead` stands in an answer between its common beginning with the prompt and its first word, `closer`
    between its reasoning and that word; `closer` is empty where the prompt leaves no thinking block open.
    """

    prompts: dict[bool, str]
    gaps: dict[bool, str]
    missing: dict[bool, str]
    lead: str
    closer: str

    @property
    def is_answered(self) -> bool:
        """Whether every reply goes on from what is asked, and no mark of a role would be learned."""
        return not any(self.gaps.values()) and not any(self.missing.values())

    @property
    def keeps_its_role(self) -> bool:
        """Whether the prompt that every reply goes on from still has the mark of the role, where there is one."""
        prompt = self.prompts.get(False, "")
        return bool(self.fits().get(False, "").strip()) or not prompt.strip()

    def fits(self) -> dict[bool, str]:
        """The generation prompts that every reply goes on from."""
        return {
            tool: prompt[: len(prompt) - len(self.gaps[tool])] + self.missing[tool]
            for tool, prompt in self.prompts.items()
        }

    def reply_behind(self, asked: str, answered: str, message: Message, after_tool: bool) -> str | None:
        """A reply's text right behind `asked`: its reasoning, the end of that, and the reply as `answered` has it.

        None where the two texts do not differ in the way that the probes did.
        """
        gap = self.gaps.get(after_tool, "")
        common = asked[: len(asked) - len(gap)]
        if not asked.endswith(gap) or not answered.startswith(common):
            return None
        rest = answered[len(common) :].removeprefix(self.lead)
        if not self.closer:
            return rest
        thought, block = _thought_of(message), _THOUGHT.match(rest)
        if thought and block is not None and thought in block[1]:
            rest = rest[block.end() :]
        elif thought and thought in rest:
            return rest
        return thought + self.closer + rest


def _thought_of(message: Message) -> str:
    """A reply's reasoning, be it in a field of its own or at the head of its content."""
    message = once_reasoned(message)
    inline = _THOUGHT.match(message["content"])
    return str(message.get("reasoning_content") or (inline[1] if inline else "")).strip()


def asking_of(template: ChatTemplate, signs: Signs, tail: str) -> Asking:
    """How a template asks, by its answers to the probes; `tail` as in `trials`."""
    prompts: dict[bool, str] = {}
    gaps = {False: "", True: ""}
    beyond: dict[bool, list[str]] = {False: [], True: []}
    unsure = set()
    found = list(trials(template, tail))
    for trial in found:
        tool, prompt = trial.after_tool, trial.prompt
        common = signs.common(trial.asked, trial.answered)
        if prompt is None or common < len(trial.before):
            continue  # the turns before are written otherwise once they are answered: seen in each row
        if prompts.setdefault(tool, prompt) != prompt:
            unsure.add(tool)
        gaps[tool] = max(gaps[tool], trial.asked[common:], key=len)
        beyond[tool].append(trial.answered[len(trial.asked) :] if not trial.asked[common:] else "")
    known = {tool: prompt for tool, prompt in prompts.items() if tool not in unsure}
    for tool, prompt in known.items():
        gaps[tool] = _with_its_opening(prompt, gaps[tool])
    role = known.get(False, "")
    role = role[: len(role) - len(gaps[False])] if role else _common_role(beyond[False])
    # Some write the mark of the role behind their own generation prompt.
    missing = {
        tool: role if role.strip() and texts and all(text.startswith(role) for text in texts) else ""
        for tool, texts in beyond.items()
    }
    return Asking(known, gaps, missing, *_first_words(found, gaps, prompts.get(False, "")))


def _with_its_opening(prompt: str, gap: str) -> str:
    """A gap from where the thinking block opens that it stands in: half a block is no beginning."""
    opened = _OPENED.search(prompt[: len(prompt) - len(gap)]) if gap else None
    return prompt[opened.start() :] if opened is not None else gap


def _common_role(texts: list[str]) -> str:
    """The mark of the role in a template that does not ask for replies: what all begin with, but their thinking."""
    common = commonprefix(texts).partition("<think>")[0]
    return common if common.strip() else ""


def _first_words(found: list[Trial], gaps: dict[bool, str], prompt: str) -> tuple[str, str]:
    """`lead` and `closer` of an Asking."""
    lead = closer = ""
    opened = _OPENED.search(prompt)
    is_open = opened is not None
    for trial in found:
        if not trial.answered.startswith(trial.asked[: len(trial.before)]):
            continue
        start, word = len(trial.asked) - len(gaps[trial.after_tool]), trial.answered.rfind("ζalpha")
        if word < 0:
            continue
        reasoned = trial.answered.find("θwhy", len(trial.before))
        if 0 <= reasoned < word:
            closer = closer or trial.answered[reasoned + len("θwhy") : word]
            is_open = is_open or not trial.answered[:reasoned].removeprefix(trial.asked).strip()
        else:
            lead = lead or trial.answered[start:word]
    if not closer and opened is not None:
        closer = f"\n</{opened[1]}>\n\n"
    return lead, closer if is_open else ""


def fitted(template: ChatTemplate, asking: Asking) -> ChatTemplate | None:
    """`template` with the generation prompt that its replies begin with; None where that cannot be had by appending.

    Proved on the probes: all else that it writes stays as it is.
    """
    if asking.is_answered:
        return None
    prompts = asking.fits()
    changed = template.with_source(replace_prompt(template.source, prompts))
    for trial in trials(template):
        prompt = prompts.get(trial.after_tool)
        if trial.prompt is None or prompt is None:
            return None
        try:
            asked = changed.text(trial.messages, trial.tools, ask=True)
            before = changed.text(trial.messages, trial.tools)
        except Unrenderable:
            return None
        if (before, asked) != (trial.before, trial.before + prompt):
            return None
    return changed


def replace_prompt(source: str, prompts: dict[bool, str]) -> str:
    """A chat template that asks for a reply by `prompts` alone, after a tool's turn (True) or any other (False)."""
    body = re.sub(r"(\r\n|\r|\n)\Z", "", source)
    head = "{%- set ask_for_reply = add_generation_prompt -%}{%- set add_generation_prompt = false "
    usual, after_tool = prompts.get(False, ""), prompts.get(True, prompts.get(False, ""))
    printed = _literal(usual)
    if usual != after_tool:
        head = "{%- set last_speaker = messages[-1]['role'] if messages else '' -%}" + head
        printed = f"{_literal(after_tool)} if last_speaker == 'tool' else {_literal(usual)}"
    head += "+%}" if body[:1].isspace() else "%}"
    return f"{head}{body}{{% if ask_for_reply %}}{{{{ {printed} }}}}{{% endif %}}"


def _literal(text: str) -> str:
    """A text as a Jinja template writes it."""
    for letter, spelt in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(letter, spelt)
    return f"'{text}'"
