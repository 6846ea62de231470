"""What the linter can say: each code with its severity, its sentence, and what to do."""

from collections.abc import Iterable
from dataclasses import replace

from core.data.conversation import SEVERITIES, Finding
from core.data.findings import Rule

RULES = {
    "nothing-usable": Rule(
        "error",
        "No rows are left to train on: all {count} are dropped, most because {example}.",
        "Fix the reasons given, or choose another format, template or length limit.",
    ),
    "nothing-trained": Rule(
        "error",
        "In {rows} nothing counts in the loss, so {they} {are} dropped.",
        "Give at least one reply a weight above 0, or choose a template that includes the replies.",
    ),
    "no-end-of-turn": Rule(
        "error",
        "In {rows} the reply is learned without {example}, the token that ends a turn, so the model will not stop.",
        "Choose another template (data.template) that ends each reply with that token.",
    ),
    "no-embedding": Rule(
        "error",
        "{rows} contain{s} {examples}, but the model has embeddings only for the ids 0 to {limit}: training would "
        "fail.",
        "Remove these tokens from the data, or choose the model that this tokenizer was made for.",
    ),
    "reply-dropped": Rule(
        "error",
        "In {rows} the template omits the text of the reply, so it is not learned.",
        "Choose another template (data.template): this one expects a different text format.",
    ),
    "question-fills-limit": Rule(
        "warning",
        "In {rows} the prompt alone fills the limit of {limit} tokens, so {they} {are} dropped.",
        "Raise data.max_length, or shorten the text before the reply.",
    ),
    "unrenderable": Rule(
        "warning",
        "{rows} cannot be rendered for this model and {are} dropped: {example}.",
        "Fix these rows, or choose another template (data.template).",
    ),
    "system-refused": Rule(
        "warning",
        "{rows} {are} dropped because the model's template refuses system prompts.",
        "Set data.system to into_question, which puts it before the prompt.",
    ),
    "same-speaker-refused": Rule(
        "warning",
        "{rows} {are} dropped because the model's template refuses two turns of one speaker in a row.",
        "Switch on data.join_turns, which merges them, so that {they} can be used.",
    ),
    "double-bos": Rule(
        "warning",
        "{rows} begin{s} with two begin-of-text tokens, which the model never sees when it replies.",
        "Remove the token from the data, or choose a template that does not add it.",
    ),
    "reply-cut": Rule(
        "warning",
        "{rows} {are} longer than the limit of {limit} tokens, so the end of the reply is truncated and not learned.",
        "{advice}",
    ),
    "placeholder": Rule(
        "warning",
        "{rows} contain{s} an unfilled placeholder, such as {examples}: the model learns to write it.",
        "Fill in the placeholders, or delete these rows.",
    ),
    "chat-log": Rule(
        "warning",
        "{rows} look{s} like a chat log, such as {examples}: as plain text, dates and names are learned too.",
        "To learn the replies of one speaker, convert it to messages with a role for each speaker.",
    ),
    "template-text": Rule(
        "warning",
        "{rows} contain{s} chat template markers as text, such as {examples}: turns would be misread.",
        "Remove the markers; Nibble adds the model's own. A conversation in a single text may need another format.",
    ),
    "duplicate": Rule(
        "warning",
        "{rows} {are} an exact copy of an earlier one, so {they} count{s} more than once.",
        "Delete the copies, unless they are meant to count more. Copies always stay in one split.",
    ),
    "same-prompt-different-reply": Rule(
        "note",
        "{rows} {have} the same prompt as another row, with a different reply.",
        "Fine if several replies are right; if one is better, keep only that one.",
    ),
    "train-and-eval": Rule(
        "warning",
        "{rows} {are} both trained on and held out, so the evaluation loss looks better than it is.",
        "Delete the copies from one of the two.",
    ),
    "very-long": Rule(
        "warning",
        "{rows} {are} more than {times} times as long as the median row, which has {middle} characters.",
        "Check them: a missing quote or separator often merges many rows into one.",
    ),
    "very-short": Rule(
        "warning",
        "{rows} {have} replies of at most {limit} characters; the median row has {middle}.",
        "Check them: such replies are often truncated, or notes such as 'n/a'.",
    ),
    "system-dropped": Rule(
        "warning",
        "{rows} {have} a system prompt that the template omits, so the model never sees it.",
        "Set data.system to into_question, which puts it before the prompt.",
    ),
    "content-dropped": Rule(
        "warning",
        "{rows} contain{s} {examples} that the template omits, so the model never sees them.",
        "Choose a model whose template supports them (data.template), or put them into the text of a turn.",
    ),
    "reasoned-twice": Rule(
        "warning",
        "{rows} {have} reasoning in `reasoning_content` and another in the text of the same reply: both are learned.",
        "Keep one of the two. If they are identical, the one in the text is removed automatically.",
    ),
    "turns-apart": Rule(
        "note",
        "The template renders earlier replies differently once more turns follow. In {rows} each such reply is "
        "trained as a separate text, as rendered when it is the last turn; that takes more tokens.",
        "Set data.train_on to last_reply to train on the last one only.",
    ),
    "prompt-fitted": Rule(
        "note",
        "{rows} {are} trained with a fitted generation prompt, because the model's own generation prompt does not "
        "match how its replies begin ({example}). Chat and exports of this adapter use the fitted prompt.",
        "Set data.generation_prompt to continued to keep the prompt and train replies after it.",
    ),
    "prompt-continued": Rule(
        "note",
        "{rows} {are} trained after the full generation prompt with its {example}, which the template does not write "
        "before a reply; an opened thinking block is closed, empty if there is no reasoning.",
        "Set data.generation_prompt to fitted so that chat and exports leave it out.",
    ),
    "prompt-unanswered": Rule(
        "warning",
        "{rows} {are} trained as the template writes {them}, but chat adds {example} before a reply, which is never "
        "trained.",
        "Set data.generation_prompt to fitted or auto, or data.train_on to replies.",
    ),
    "reply-changed": Rule(
        "note",
        "In {rows} the template changes the reply before training: {examples}.",
        "Usually intended by the model's authors. The row's tokens show what is learned.",
    ),
}


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Worst first, by severity and then by how many rows; of one code only the first that was given."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.code, finding)
    counted = [replace(each, count=max(each.count, len(each.rows))) for each in first.values()]
    return sorted(counted, key=lambda each: (SEVERITIES.index(each.severity), -each.count, each.code))
