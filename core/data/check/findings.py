"""What the linter can say: each code with its severity, its sentence, and what to do; and who counts the rows."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from core.data.conversation import Finding

ROWS_LISTED = 1000
EXAMPLES = 3
_DIFFERENT_EXAMPLES = 50
_SEVERITIES = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Rule:
    """One code: its sentences take `{rows}` ("12 rows") and verbs to agree with it (`{are}`, `{have}`, `{s}`)."""

    severity: Literal["error", "warning", "note"]
    message: str
    mend: str


RULES = {
    "nothing-usable": Rule(
        "error",
        "No row is left to train on: all {count} are dropped, most because {example}.",
        "Correct what the reasons name, or choose another format, template or length limit.",
    ),
    "nothing-trained": Rule(
        "error",
        "In {rows} nothing counts in the loss, so {they} {are} dropped.",
        "Give at least one reply a weight above 0, or choose a template that shows the replies.",
    ),
    "no-end-of-turn": Rule(
        "error",
        "In {rows} the reply is learned without {example}, the token that ends a turn, so the model will not stop.",
        "Choose another template (data.template) that ends each reply with that token.",
    ),
    "no-embedding": Rule(
        "error",
        "{rows} hold{s} {examples}, but the model has embeddings for the ids 0 to {limit} only: training would fail.",
        "Take these tokens out of the data, or choose the model that this tokenizer was made for.",
    ),
    "reply-dropped": Rule(
        "error",
        "In {rows} the template leaves out what the reply says, so it is not learned.",
        "Choose another template (data.template): this one expects the text in another form.",
    ),
    "question-fills-limit": Rule(
        "warning",
        "In {rows} the question alone fills the limit of {limit} tokens, so {they} {are} dropped.",
        "Raise data.max_length, or shorten what stands before the reply.",
    ),
    "unrenderable": Rule(
        "warning",
        "{rows} cannot be laid out for this model and {are} dropped: {example}.",
        "Correct these rows, or choose another template (data.template).",
    ),
    "system-refused": Rule(
        "warning",
        "{rows} {are} dropped because the model's template refuses system prompts.",
        "Set data.system to into_question, which puts it before the question.",
    ),
    "same-speaker-refused": Rule(
        "warning",
        "{rows} {are} dropped because the model's template refuses two turns of one speaker in a row.",
        "Switch data.join_turns on, which joins them into one: then {they} can be used.",
    ),
    "double-bos": Rule(
        "warning",
        "{rows} begin{s} with the begin-of-text token twice, which the model never sees when it answers.",
        "Take the token out of the data, or choose a template that does not write it.",
    ),
    "reply-cut": Rule(
        "warning",
        "{rows} {are} longer than the limit of {limit} tokens, so the end of the reply is cut off and not learned.",
        "{advice}",
    ),
    "placeholder": Rule(
        "warning",
        "{rows} hold{s} a placeholder that nobody filled in, such as {examples}: the model learns to write it.",
        "Fill the placeholders in, or delete these rows.",
    ),
    "chat-log": Rule(
        "warning",
        "{rows} {are} the log of a chat, such as {examples}: as plain text, its dates and names are learned too.",
        "To learn what one of them replies, write it as messages, with who speaks as the role of each.",
    ),
    "template-text": Rule(
        "warning",
        "{rows} hold{s} the marks of a chat template as text, such as {examples}: turns would be mistaken.",
        "Take the marks out; Nibble puts the model's own in. A conversation in one text may need another format.",
    ),
    "duplicate": Rule(
        "warning",
        "{rows} {are} an exact copy of an earlier one, so what {they} say{s} is learned more than once.",
        "Delete the copies, unless they are meant to count more. They are kept on one side of the split.",
    ),
    "same-prompt-different-reply": Rule(
        "note",
        "{rows} ask{s} what another row asks, and the replies differ.",
        "Good where several replies are right; where one is better, keep that one.",
    ),
    "train-and-eval": Rule(
        "warning",
        "{rows} {are} both trained on and held out, so the evaluation loss looks better than it is.",
        "Delete the copies from one of the two.",
    ),
    "very-long": Rule(
        "warning",
        "{rows} {are} more than {times} times as long as the middle row, which has {middle} characters.",
        "Look at them: a missing quote or separator often makes one row of many.",
    ),
    "very-short": Rule(
        "warning",
        "{rows} {have} replies of at most {limit} characters, where the middle row's have {middle}.",
        "Look at them: such replies are often cut off, or notes such as 'n/a'.",
    ),
    "system-dropped": Rule(
        "warning",
        "{rows} {have} a system prompt that the template leaves out, so it is neither read nor learned.",
        "Set data.system to into_question, which puts it before the question.",
    ),
    "content-dropped": Rule(
        "warning",
        "{rows} hold{s} {examples} that the template leaves out, so the model never sees them.",
        "Choose a model whose template carries them (data.template), or put them into the text of a turn.",
    ),
    "reasoned-twice": Rule(
        "warning",
        "{rows} {have} reasoning in `reasoning_content` and another in the text of the same reply: both are learned.",
        "Keep one of the two. Where they are the same, the one in the text is left out by itself.",
    ),
    "turns-apart": Rule(
        "note",
        "The template writes earlier replies differently once more turns follow. In {rows} each such reply is learned "
        "in a text of its own, as it is written when it is the newest; that takes more tokens.",
        "Set data.train_on to last_reply to learn only the last one.",
    ),
    "prompt-fitted": Rule(
        "note",
        "{rows} {are} learned behind a fitted generation prompt: the model's own template asks for a reply otherwise "
        "than its replies begin ({example}). Chat and exports of this adapter ask in the fitted way.",
        "Set data.generation_prompt to continued to keep the prompt, and learn to go on from it.",
    ),
    "prompt-continued": Rule(
        "note",
        "{rows} {are} learned behind the whole generation prompt with its {example}, which the template does not write "
        "before a reply; a thinking block that it opens is closed, empty where there is no reasoning.",
        "Set data.generation_prompt to fitted to have chat and exports ask without it.",
    ),
    "prompt-unanswered": Rule(
        "warning",
        "{rows} {are} learned as the template writes {them}, but a chat asks with {example} before a reply, which is "
        "never learned.",
        "Set data.generation_prompt to fitted or auto, or data.train_on to replies.",
    ),
    "reply-changed": Rule(
        "note",
        "In {rows} the template changes the reply before it is learned: {examples}.",
        "Usually meant so by the model's makers. The row as tokens shows what is learned.",
    ),
}


class Hits:
    """In which rows each code stands: counted exactly, four bytes a row, with the commonest examples."""

    def __init__(self) -> None:
        self._rows: dict[str, array[int]] = {}
        self._examples: dict[str, Counter[str]] = {}

    def add(self, code: str, row: int, example: str | None = None) -> None:
        """Code `code` stands in `row`; said twice of the row that came last, it counts once."""
        rows = self._rows.setdefault(code, array("i"))
        if not rows or rows[-1] != row:
            rows.append(row)
        if example is not None:
            examples = self._examples.setdefault(code, Counter())
            if example in examples or len(examples) < _DIFFERENT_EXAMPLES:
                examples[example] += 1

    def extend(self, code: str, rows: Iterable[int]) -> None:
        """Code `code` stands in all of `rows`, in rising order."""
        self._rows.setdefault(code, array("i")).extend(rows)

    def rows(self, code: str) -> array[int]:
        """Every row with `code`, in rising order."""
        return self._rows.get(code, array("i"))

    def finding(self, code: str, among: str = "", counted: bool = False, **details: object) -> Finding | None:
        """The finding of one code, None where it stands nowhere.

        `details` fill its sentence, `among` says where rows were looked for if not in all. With `counted`, each
        example comes with its number of rows.
        """
        rows = self.rows(code)
        if not rows:
            return None
        examples = self._examples.get(code, Counter()).most_common(EXAMPLES)
        shown = [f"{example} ({count:,})" if counted else example for example, count in examples]
        details = {"example": shown[0] if shown else "", "examples": _joined(shown), **details}
        return make_finding(code, rows.tolist()[:ROWS_LISTED], len(rows), among, **details)


def make_finding(code: str, rows: list[int], count: int, among: str = "", **details: object) -> Finding:
    """A finding with its sentence written out; `rows` are the first of `count`."""
    rule = RULES[code]
    one = count == 1
    words = {
        "rows": f"{count:,} {'row' if one else 'rows'}{among}",
        "they": "it" if one else "they",
        "them": "it" if one else "them",
        "are": "is" if one else "are",
        "have": "has" if one else "have",
        "s": "s" if one else "",
        "count": f"{count:,}",
    }
    message, mend = (text.format(**words, **details) for text in (rule.message, rule.mend))
    return Finding(code, rule.severity, message, mend, rows, count)


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, by severity and then by how many rows; of one code only the first that was given."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    counted = [replace(each, count=max(each.count, len(each.rows))) for each in first.values()]
    return sorted(counted, key=lambda each: (_SEVERITIES[each.severity], -each.count, each.code))


def _joined(examples: list[str]) -> str:
    if len(examples) < 2:
        return "".join(examples)
    return f"{', '.join(examples[:-1])} and {examples[-1]}"
