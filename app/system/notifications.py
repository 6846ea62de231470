"""Who is notified of a run's end, besides the browser. A section of the System tab."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr

from app.context import Context
from app.ui import html
from app.ui.updates import ONCE, QUIET, Updates
from core.errors import NibbleError
from core.runs import notify
from core.workspace import Workspace

TRIAL = {
    "run": "trial",
    "name": "Test",
    "state": "finished",
    "step": 1,
    "total": 1,
    "eval_loss": None,
    "message": "Test message from Nibble's System tab: no run has ended.",
}


class NotificationParts:
    """The components that events touch."""

    def __init__(self) -> None:
        gr.HTML("<h3>While you are away</h3>", elem_classes="nb-slot")
        self.webhook = gr.Textbox(
            label="Webhook",
            type="password",
            placeholder="https://…",
            info="When a run ends, this address gets a POST of JSON: run, name, state, step, total, eval_loss, "
            "message. Leave it empty for none.",
        )
        with gr.Row(elem_classes="nb-actions"):
            self.keep = gr.Button("Save", variant="primary")
            self.attempt = gr.Button("Send a test")
        self.message = gr.HTML(elem_classes="nb-slot")

    def shown(self) -> list[Any]:
        """What is filled when the tab is opened."""
        return [self.webhook, self.message]


def wire(parts: NotificationParts, context: Context) -> None:
    """Attach the section's events."""
    keep = partial(keep_webhook, context)
    gr.on([parts.keep.click, parts.webhook.submit], keep, parts.webhook, parts.message, **QUIET)
    parts.attempt.click(partial(try_webhook, context), parts.webhook, parts.message, **ONCE)


def fill(parts: NotificationParts, context: Context) -> Updates:
    """What is kept, and how a command is set. Where others reach the app, the address is nobody's but the owner's."""
    workspace = context.workspace
    if context.listening:
        return {parts.webhook: "", parts.message: _only_the_owner(workspace)}
    try:
        wanted = notify.wishes(workspace)
    except NibbleError as error:
        return {parts.webhook: "", parts.message: html.error_box(str(error))}
    return {parts.webhook: wanted.webhook, parts.message: _command(workspace, wanted)}


def _only_the_owner(workspace: Workspace) -> str:
    file = notify.file_of(workspace)
    return html.note_box(
        f"Others can reach this page, so it cannot be set here: edit {file}, or start Nibble without --listen and "
        f"--share."
    )


def keep_webhook(context: Context, webhook: str | None) -> str:
    """Keep the address on the screen; an empty one is taken away."""
    workspace = context.workspace
    if context.listening:
        return _only_the_owner(workspace)
    try:
        notify.set_webhook(workspace, webhook or "")
        wanted = notify.wishes(workspace)
    except NibbleError as error:
        return html.error_box(str(error))
    kept = "Saved. It is called whenever a run ends." if wanted.webhook else "No webhook is set."
    return html.note_box(kept) + _command(workspace, wanted)


def try_webhook(context: Context, webhook: str | None) -> Iterator[str]:
    """Tell the address on the screen, kept or not, and the command of the file."""
    workspace = context.workspace
    if context.listening:
        yield _only_the_owner(workspace)
        return
    yield html.busy("Sending…")
    try:
        wanted = notify.Wishes(notify.checked_address(webhook or ""), notify.wishes(workspace).command)
    except NibbleError as error:
        yield html.error_box(str(error))
        return
    if wanted == notify.Wishes():
        yield html.note_box("Nothing to notify: enter an address, or set a command in the file.")
        return
    troubles = notify.tell(wanted, TRIAL)
    yield html.error_box(" ".join(troubles)) if troubles else html.note_box("The test was delivered.")


def _command(workspace: Workspace, wanted: notify.Wishes) -> str:
    """A command is only taken from the file: say so, and where that is."""
    file = html.text(notify.file_of(workspace))
    example = html.text('"command": ["notify-send", "Nibble", "A run has ended"]')
    now = f"Now: <code>{html.text(' '.join(wanted.command))}</code>. " if wanted.command else ""
    return (
        f'<details class="nb-muted"{" open" if wanted.command else ""}><summary>Run a command instead</summary>'
        f"<p>{now}Write <code>{example}</code> into <code>{file}</code>. It is run without a shell, with NIBBLE_RUN"
        ", NIBBLE_NAME, NIBBLE_STATE, NIBBLE_STEP, NIBBLE_TOTAL, NIBBLE_EVAL_LOSS and NIBBLE_MESSAGE in its "
        "environment. It cannot be set on this page, because anyone who can open the page could then run anything on "
        "this machine."
        "</p></details>"
    )
