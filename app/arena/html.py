"""A match as HTML and Markdown: the question, who stands on which side once that may be told, and the jobs below."""

from app.chat.html import reply
from app.ui.html import busy, empty, error_box, note_box, number, text
from core.arena.judge import Bias
from core.arena.match import Match
from core.arena.votes import Vote

VOTED = {
    "left": "You voted for the left reply.",
    "right": "You voted for the right reply.",
    "tie": "You voted for a tie.",
    "both_bad": "You voted both bad.",
}
SIDES = ("Left", "Right")

# For gr.HTML: the four votes and the next question by keys, where nobody is writing.
KEYS = """
const buttons = { 1: "nb-vote-left", 2: "nb-vote-right", 3: "nb-vote-tie", 4: "nb-vote-both_bad", n: "nb-arena-go" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || element.offsetParent === null) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const button = document.getElementById(buttons[event.key.toLowerCase()]);
  if (button && !button.disabled) { event.preventDefault(); button.click(); }
});
"""


def asked(match: Match | None) -> str:
    """The question, or what will be here."""
    if match is None:
        return empty(
            "Blind comparison",
            "Two models reply to the same prompt. Their names are shown after you vote.",
        )
    same = note_box("Both replies are identical.") if match.same and match.vote is None else ""
    return f'<div class="nb-asked-box"><small>Prompt</small><p>{text(match.prompt.text)}</p></div>{same}'


def heading(match: Match | None, side: int, answering: bool) -> str:
    """Above one reply: its side and whether it is being made, and after the vote its name."""
    if match is None:
        return ""
    shown = (match.left, match.right)[side]
    if match.vote is None:
        speaks = '<i class="nb-spin"></i>' if shown is match.left or match.left.done else "<small>waits</small>"
        state = "" if shown.done else speaks if answering else "<small>incomplete</small>"
        return f'<div class="nb-side-head"><b>{SIDES[side]}</b>{state}</div>'
    won = match.vote.winner == SIDES[side].lower()
    badge = '<span class="nb-state nb-finished">your vote</span>' if won else ""
    tokens = f"<small>{number(shown.side.tokens)} tokens</small>"
    return f'<div class="nb-side-head nb-told"><b>{text(shown.side.label)}</b>{badge}{tokens}</div>'


def reply_text(match: Match | None, side: int) -> str:
    """One reply as Markdown in which HTML is text; what the model thought is folded."""
    return "" if match is None else reply((match.left, match.right)[side].side.text, empty="")


def decided(vote: Vote, wait: int | None) -> str:
    """After the vote; `wait` says how many prepared pairs are left, where it was one of those."""
    left = "" if wait is None else f" {waits(wait)}"
    return note_box(
        f"{VOTED[vote.winner]} The names are above the replies now. For the next pair, use the button "
        f"above or press N.{left}"
    )


def waits(pairs: int) -> str:
    """How many prepared pairs wait for a vote."""
    return f"{number(pairs)} prepared {'pair waits' if pairs == 1 else 'pairs wait'} for your vote."


def job(running: bool, done: int, total: int, unit: str, remark: str, error: str) -> str:
    """A job of minutes or hours: how far it is, what it said, why it ended."""
    if error:
        return error_box(error)
    if not running and not remark:
        return ""
    bar = f'<div class="nb-bar"><i style="width:{100 * done / total:.1f}%"></i></div>' if total else ""
    message = f"{number(done)} of {number(total)} {unit}. {remark}".strip() if total else remark
    return f"{bar}{busy(message) if running else note_box(message)}"


def lean(bias: Bias) -> str:
    """How much the judges favour a place, from all of their votes."""
    decided_votes = bias.first + bias.second
    first = f"{bias.first / decided_votes:.0%}" if decided_votes else "none"
    return note_box(
        f"Judge bias: {number(bias.agree)} of {number(bias.pairs)} pairs were decided the same way in both orders. "
        f"Of the votes that were not ties, {first} went to the reply shown first; 50% would be unbiased."
    )


def not_read(summary: str, reasons: list[str], count: int) -> str:
    """What an import left out, and why."""
    lines = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
    more = f"<li>and {number(count - len(reasons))} more</li>" if count > len(reasons) else ""
    return (
        f'<div class="nb-box nb-note" role="status"><span>{text(summary)}</span>'
        f"<details><summary>Rows that are not votes</summary><ul>{lines}{more}</ul></details></div>"
    )
