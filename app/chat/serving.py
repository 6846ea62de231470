"""The endpoint that the Chat tab starts: over the chat's own process, so the base is in memory once."""

from app.ui.html import error_box, text
from core.chat.client import ChatClient
from core.errors import NibbleError
from core.runs.chat_models import find_chat_model
from core.serve.server import EndpointServer, given_key, new_key
from core.workspace import Workspace


class ServingSession:
    """One endpoint at most. It ends with the app."""

    def __init__(self, workspace: Workspace, client: ChatClient) -> None:
        self._workspace, self._client = workspace, client
        self._server: EndpointServer | None = None
        self._error = ""

    @property
    def serves(self) -> bool:
        """Whether the endpoint is there."""
        return self._server is not None

    def toggle(self, key: str) -> None:
        """Serve this model and those over the same base; or end it, where it is there."""
        self._error = ""
        if self._server is not None:
            self._server.stop()
            self._server = None
            return
        try:
            model = find_chat_model(self._workspace, key)
            self._server = EndpointServer(self._client, self._workspace, model, given_key(None) or new_key(), None)
            self._server.start()
        except NibbleError as error:
            self._error = str(error)

    def box(self) -> str:
        """What other programs need, or what is wrong."""
        if self._error:
            return error_box(self._error)
        if self._server is None:
            return (
                '<p class="nb-muted">Programs that use the OpenAI API can chat with this model. You get an address on '
                "this machine and a key.</p>"
            )
        rows = {"Address": self._server.url, "API key": self._server.key, "Model": self._server.model}
        lines = "".join(f"<dt>{name}</dt><dd><code>{text(value)}</code></dd>" for name, value in rows.items())
        return f'<dl class="nb-serves">{lines}</dl>'
