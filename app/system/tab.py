"""System: what the doctor found, predicted against used memory, the disk, versions, signing in to Hugging Face."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.run_view import predicted_html
from app.system import html as system_html
from app.system import notifications, stores
from app.ui import html
from app.ui.tab import PageParts, Tab
from app.ui.updates import ONCE, QUIET, Updates
from core.errors import NibbleError
from core.runs.find import list_runs


class SystemLayout:
    """The components of the tab that events touch."""

    def __init__(self) -> None:
        with gr.Row(elem_classes="nb-system"):
            with gr.Column(scale=6, min_width=380):
                gr.HTML("<h3>This machine</h3>", elem_classes="nb-slot")
                self.findings = gr.HTML(
                    html.empty("Not checked yet", "Checks Python, torch, the device and bitsandbytes."),
                    elem_classes="nb-slot",
                )
                self.look = gr.Button("Check this machine", variant="primary", elem_classes="nb-narrow")
                gr.HTML("<h3>Memory: predicted and used</h3>", elem_classes="nb-slot")
                self.record = gr.HTML(elem_classes="nb-slot")
                gr.HTML("<h3>Disk</h3>", elem_classes="nb-slot")
                self.disk = gr.HTML(elem_classes="nb-slot")
                self.stores = stores.StoreParts()
            with gr.Column(scale=5, min_width=340):
                gr.HTML("<h3>Hugging Face</h3>", elem_classes="nb-slot")
                self.who = gr.HTML(elem_classes="nb-slot")
                self.token = gr.Textbox(
                    label="Access token",
                    type="password",
                    placeholder="hf_…",
                    info="From huggingface.co/settings/tokens. Stored by Hugging Face's own library, not by Nibble.",
                )
                with gr.Row(elem_classes="nb-actions"):
                    self.sign_in = gr.Button("Sign in", variant="primary")
                    self.sign_out = gr.Button("Sign out", visible=False)
                self.notifications = notifications.NotificationParts()
                gr.HTML("<h3>Versions</h3>", elem_classes="nb-slot")
                self.versions = gr.Textbox(
                    label="For a bug report", lines=10, interactive=False, buttons=["copy"], elem_classes="nb-mono"
                )

    def signing(self) -> list[Component]:
        """What shows who is signed in."""
        return [self.who, self.token, self.sign_in, self.sign_out]

    def filled(self) -> list[Component]:
        """What is set when the tab comes into sight."""
        return [
            *self.signing(),
            self.versions,
            self.record,
            self.disk,
            *self.stores.shown(),
            *self.notifications.shown(),
        ]


class SystemTab(Tab):
    """The tab. It is filled whenever it comes into sight, and changes by nothing else."""

    name, title = "system", "System"
    layout: SystemLayout

    def __init__(self, context: Context) -> None:
        self.context = context

    def build(self) -> None:
        """Lay the tab out."""
        self.layout = SystemLayout()

    def wire(self, page: PageParts) -> None:
        """Attach the events."""
        layout, signing = self.layout, self.layout.signing()
        layout.look.click(partial(_look, self.context), None, layout.findings, **ONCE)
        sign_in = [layout.sign_in.click, layout.token.submit]
        gr.on(sign_in, partial(_sign_in, layout), layout.token, signing, **QUIET)
        layout.sign_out.click(partial(_sign_out, layout), None, signing, **QUIET)
        stores.wire(layout.stores, self.context)
        notifications.wire(layout.notifications, self.context)

    def selected(self, item: gr.Tab, page: PageParts) -> Callable[..., Any]:
        """It is looked at anew."""
        return item.select(self.open, None, self.layout.filled(), **QUIET).then

    def open(self) -> Updates:
        """What is known without waiting."""
        runs = list_runs(self.context.workspace)
        return {
            **who(self.layout),
            **stores.fill(self.layout.stores, self.context),
            **notifications.fill(self.layout.notifications, self.context),
            self.layout.versions: system_html.versions(),
            self.layout.record: predicted_html.record(runs),
            self.layout.disk: system_html.disk(runs),
        }


def _look(context: Context) -> Iterator[str]:
    from core.system.doctor import doctor

    yield html.busy("Checking Python, torch, the device and bitsandbytes. This takes about ten seconds.")
    try:
        yield system_html.findings(doctor(context.workspace))
    except NibbleError as error:
        yield html.error_box(str(error))


def _sign_in(layout: SystemLayout, token: str | None) -> Updates:
    """Hand the token to Hugging Face's own store; it is neither kept nor logged here."""
    from huggingface_hub import errors, login

    if not (token or "").strip():
        return {layout.who: html.error_box("Paste an access token first.")}
    try:
        login(token=(token or "").strip(), add_to_git_credential=False)
    except (errors.HfHubHTTPError, ValueError) as error:
        return {layout.who: html.error_box("Hugging Face rejected this token.", type(error).__name__)}
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:
        return {layout.who: html.error_box("Hugging Face cannot be reached from here.", type(error).__name__)}
    return who(layout)


def _sign_out(layout: SystemLayout) -> Updates:
    from huggingface_hub import logout

    logout()
    return who(layout)


def who(layout: SystemLayout) -> Updates:
    """Whether somebody is signed in, read from Hugging Face's own store without asking the network."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import get_stored_tokens

    token = get_token()
    fixed = bool(os.environ.get("HF_TOKEN"))
    name = next((name for name, stored in get_stored_tokens().items() if stored == token), "")
    message = "Not signed in. Needed only for gated and private models."
    if token:
        message = f"Signed in with the token “{name}”." if name else "Signed in."
    if fixed:
        message = "Signed in through the environment variable HF_TOKEN; change it there."
    return {
        layout.who: html.note_box(message),
        layout.sign_in: gr.Button(visible=not token),
        layout.sign_out: gr.Button(visible=bool(token) and not fixed),
        layout.token: gr.Textbox(value="", visible=not token),
    }
