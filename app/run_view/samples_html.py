"""What the model says to the sample prompts, as it changes while it learns."""

from collections import defaultdict
from typing import Any

from app.ui.html import empty, number, text
from core.runs.store import ENDED

# Of a prompt's earlier answers, those that stand open: these and the first. The ones between are folded.
OPEN_ANSWERS = 3
# From the first step that it was given after to the last, and the answer itself.
Answer = tuple[int, int, str]


def says(samples: list[dict[str, Any]], state: str, late: bool = False) -> str:
    """The sample prompts, each with its newest answer on top and the earlier ones below.

    `late`: past the first evaluation, so that no answer means that nothing is asked.
    """
    if not samples and state in ENDED:
        return ""
    if not samples and late:
        return empty(
            "Sample replies", "This run has no sample prompts. You can set some under Advanced for the next run."
        )
    if not samples:
        return empty("Sample replies", "Replies to the sample prompts at each evaluation appear here.")
    answers: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in samples:
        answers[str(row.get("prompt", ""))].append((int(row.get("step", 0)), str(row.get("answer", ""))))
    return (
        '<section class="nb-says"><h4>Sample replies</h4>'
        + "".join(_prompt(prompt, given) for prompt, given in answers.items())
        + "</section>"
    )


def _prompt(prompt: str, given: list[tuple[int, str]]) -> str:
    *earlier, newest = _changes(given)
    return (
        f'<article><p class="nb-asked">{text(prompt)}</p>'
        f'<p class="nb-answer">{_answer(newest)}</p>{_before(earlier)}</article>'
    )


def _changes(given: list[tuple[int, str]]) -> list[Answer]:
    """(first step, last step, answer): one that is given again and again is shown once."""
    changes: list[Answer] = []
    for step, answer in given:
        if changes and changes[-1][2] == answer:
            changes[-1] = (changes[-1][0], step, answer)
        else:
            changes.append((step, step, answer))
    return changes


def _before(earlier: list[Answer]) -> str:
    """The answers before the newest one: where it came from at the bottom, the last ones on top, the rest folded."""
    if len(earlier) <= OPEN_ANSWERS + 2:
        return _list(earlier)
    first, *between = earlier[:-OPEN_ANSWERS]
    folded = f"<details><summary>{len(between)} replies in between</summary>{_list(between)}</details>"
    return f"{_list(earlier[-OPEN_ANSWERS:])}{folded}{_list([first])}"


def _list(given: list[Answer]) -> str:
    lines = [f"<li>{_answer(each)}</li>" for each in reversed(given)]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _answer(given: Answer) -> str:
    first, last, message = given
    at = _at(first) if first == last else f"{_at(first)} to {number(last)}"
    return f"<i>{at}</i><span>{text(message) if message.strip() else '<em>(nothing)</em>'}</span>"


def _at(step: int) -> str:
    return "before" if step == 0 else f"step {number(step)}"
