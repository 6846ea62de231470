"""What the door is made of before it is hung: a clean environment, the workspace's key, the headers of every answer."""

import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Beside GRADIO_*: what makes Gradio believe that somebody hosts it, and uvicorn believe what a client says of itself.
SCRUBBED = frozenset(
    {
        "SPACE_ID",
        "SPACE_HOST",
        "SPACE_AUTHOR_NAME",
        "SPACES_ZERO_GPU",
        "KAGGLE_KERNEL_RUN_TYPE",
        "OAUTH_CLIENT_ID",
        "OAUTH_CLIENT_SECRET",
        "OAUTH_SCOPES",
        "OPENID_PROVIDER_URL",
        "FORWARDED_ALLOW_IPS",
        "WEB_CONCURRENCY",
    }
)
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
OURSELVES = "localhost,127.0.0.1"
TOKEN_LETTERS = 32
TICKET_SECONDS = 600

# gr.HTML compiles its template in the browser, hence 'unsafe-eval'; inline scripts stay forbidden.
HEADERS = {
    "content-security-policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "frame-src 'none'",
            "media-src 'none'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), display-capture=(), usb=()",
}


def scrub_environment() -> None:
    """Take away the variables by which Gradio would open files, tunnels or ports behind our back.

    Call it before gradio is imported: some are read at import.
    """
    for name in [name for name in os.environ if name.startswith(("GRADIO_", "UVICORN_")) or name in SCRUBBED]:
        del os.environ[name]
    if os.environ.get("SYSTEM") == "spaces":
        del os.environ["SYSTEM"]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


@contextmanager
def reaching_ourselves(share: bool) -> Iterator[None]:
    """While the server starts: what it asks of itself goes through no proxy that the environment names.

    Only a tunnel (`share`) is asked for on the network meanwhile, and may need the proxy.
    """
    touched = [name for name in os.environ if name.upper() in PROXIES] + ["NO_PROXY", "no_proxy"]
    before = {name: os.environ.pop(name, None) for name in touched}
    if share:
        os.environ.update({name: value for name, value in before.items() if value is not None})
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = OURSELVES
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def workspace_token(state: Path) -> str:
    """The workspace's key, made on first use and readable by its owner only.

    It is kept, so that a page that is still open goes on working when the server is started again. A file that holds
    no whole key, as after a full disk, is made anew: an empty one would open the door to everybody.
    """
    path = state / "token"
    kept = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    if len(kept) < TOKEN_LETTERS:
        kept = secrets.token_urlsafe(32)
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(kept)
    path.chmod(0o600)
    return kept


def ticket(token: str) -> str:
    """What opens the page in the key's place, once and soon: for an address that others can read.

    The browser is started with it, and what a program is started with all users of a computer can see.
    """
    message = f"{int(time.time()) + TICKET_SECONDS}.{secrets.token_urlsafe(12)}"
    return f"{message}.{_signature(token, message)}"


@dataclass
class Tickets:
    """Those that have been used; each is remembered until it would have ended by itself."""

    _used: dict[str, int] = field(default_factory=dict)

    def take(self, token: str, given: str) -> bool:
        """Whether `given` is a ticket of this key that opens it now. It does so once."""
        message, _, signature = given.rpartition(".")
        if not hmac.compare_digest(signature.encode(), _signature(token, message).encode()):
            return False
        ends, now = int(message.partition(".")[0]), time.time()
        self._used = {used: end for used, end in self._used.items() if end >= now}
        if ends < now or message in self._used:
            return False
        self._used[message] = ends
        return True


def _signature(token: str, message: str) -> str:
    return hmac.new(token.encode(), message.encode(), "sha256").hexdigest()
