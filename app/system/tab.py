"""System: what the doctor found, predicted against used memory, disk by run, versions, signing in to Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from app.context import Context
from app.run_view import predicted_html
from app.system import html as system_html
from app.system import notifications
from app.ui import html
from core.errors import NibbleError
from core.runs.find import list_runs

Updates = dict[Any, Any]


@dataclass(frozen=True)
class SystemTab:
    """The components of the tab that events touch."""

    findings: gr.HTML
    look: gr.Button
    versions: gr.Textbox
    record: gr.HTML
    disk: gr.HTML
    who: gr.HTML
    token: gr.Textbox
    sign_in: gr.Button
    sign_out: gr.Button
    away: notifications.Away


def build() -> SystemTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="nb-system"):
        with gr.Column(scale=6, min_width=380):
            gr.HTML("<h3>This machine</h3>", elem_classes="nb-slot")
            findings = gr.HTML(
                html.empty("Not looked yet", "The doctor checks Python, torch, the device and bitsandbytes."),
                elem_classes="nb-slot",
            )
            look = gr.Button("Check this machine", variant="primary", elem_classes="nb-narrow")
            gr.HTML("<h3>Memory: predicted and used</h3>", elem_classes="nb-slot")
            record = gr.HTML(elem_classes="nb-slot")
            gr.HTML("<h3>Disk</h3>", elem_classes="nb-slot")
            disk = gr.HTML(elem_classes="nb-slot")
        with gr.Column(scale=5, min_width=340):
            gr.HTML("<h3>Hugging Face</h3>", elem_classes="nb-slot")
            who = gr.HTML(elem_classes="nb-slot")
            token = gr.Textbox(
                label="Access token",
                type="password",
                placeholder="hf_…",
                info="From huggingface.co/settings/tokens. It is kept by Hugging Face's own library, not by Nibble.",
            )
            with gr.Row(elem_classes="nb-actions"):
                sign_in = gr.Button("Sign in", variant="primary")
                sign_out = gr.Button("Sign out", visible=False)
            told = notifications.build()
            gr.HTML("<h3>Versions</h3>", elem_classes="nb-slot")
            versions = gr.Textbox(
                label="For a bug report", lines=10, interactive=False, buttons=["copy"], elem_classes="nb-mono"
            )
    return SystemTab(findings, look, versions, record, disk, who, token, sign_in, sign_out, told)


def wire(tab: SystemTab, context: Context) -> None:
    """Attach the tab's events."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    shown = [tab.who, tab.token, tab.sign_in, tab.sign_out]
    tab.look.click(partial(_look, context), None, tab.findings, trigger_mode="once", **quiet)
    gr.on([tab.sign_in.click, tab.token.submit], lambda token: _sign_in(tab, token), tab.token, shown, **quiet)
    tab.sign_out.click(lambda: _sign_out(tab), None, shown, **quiet)
    notifications.wire(tab.away, context)


def _look(context: Context) -> Iterator[str]:
    from core.system.doctor import doctor

    yield html.busy("Looking at Python, torch, the device and bitsandbytes. This takes about ten seconds.")
    try:
        yield system_html.findings(doctor(context.workspace))
    except NibbleError as error:
        yield html.error_box(str(error))


def _sign_in(tab: SystemTab, token: str | None) -> Updates:
    """Hand the token to Hugging Face's own store; it is neither kept nor logged here."""
    from huggingface_hub import errors, login

    if not (token or "").strip():
        return {tab.who: html.error_box("Paste an access token first.")}
    try:
        login(token=(token or "").strip(), add_to_git_credential=False)
    except (errors.HfHubHTTPError, ValueError) as error:
        return {tab.who: html.error_box("Hugging Face does not take this token.", type(error).__name__)}
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:
        return {tab.who: html.error_box("Hugging Face cannot be reached from here.", type(error).__name__)}
    return who(tab)


def _sign_out(tab: SystemTab) -> Updates:
    from huggingface_hub import logout

    logout()
    return who(tab)


def who(tab: SystemTab) -> Updates:
    """Whether somebody is signed in, read from Hugging Face's own store without asking the network."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import get_stored_tokens

    token = get_token()
    fixed = bool(os.environ.get("HF_TOKEN"))
    name = next((name for name, stored in get_stored_tokens().items() if stored == token), "")
    said = "Not signed in. Only gated and private models need it."
    if token:
        said = f"Signed in with the token “{name}”." if name else "Signed in."
    if fixed:
        said = "Signed in by the environment variable HF_TOKEN; it can only be changed there."
    return {
        tab.who: html.note_box(said),
        tab.sign_in: gr.Button(visible=not token),
        tab.sign_out: gr.Button(visible=bool(token) and not fixed),
        tab.token: gr.Textbox(value="", visible=not token),
    }


def fill(tab: SystemTab, context: Context) -> Updates:
    """What is known without waiting."""
    runs = list_runs(context.workspace)
    return {
        **who(tab),
        **notifications.fill(tab.away, context),
        tab.versions: system_html.versions(),
        tab.record: predicted_html.record(runs),
        tab.disk: system_html.disk(runs),
    }
