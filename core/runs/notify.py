"""Notifies the user that a run has ended, by a webhook or a command that is set up in the workspace.

`state/notify.json` holds `webhook`, an address that JSON is posted to, and `command`, a list of words that is run
without a shell, with the same values in its environment (NIBBLE_RUN, NIBBLE_STATE, ...). The command can only be set in
that file: opening the app's page must not be enough to run a program on this machine.

python -m core.runs.notify RUN_FOLDER      (started by `tell_end`, so that nobody waits for it)
"""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import NibbleError
from core.runs.store import ENDED, Run
from core.system.process import apart, as_process, end_tree, process_started
from core.workspace import Workspace, read_json, write_json

LIMIT_SECONDS = 10.0
MARK = "told"


@dataclass(frozen=True)
class Wishes:
    """How the user wants to be notified; empty where not."""

    webhook: str = ""
    command: tuple[str, ...] = ()


def wishes(workspace: Workspace) -> Wishes:
    """What `state/notify.json` says. Raises NibbleError where it cannot be used."""
    values: Any = read_json(file_of(workspace))
    if values is None and not file_of(workspace).exists():
        return Wishes()
    if not isinstance(values, dict):
        raise NibbleError(f"{file_of(workspace)} is not valid JSON. Fix it or delete it.")
    command, webhook = values.get("command", []), values.get("webhook", "")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise NibbleError('command in notify.json must be a list of words, such as ["notify-send", "Nibble"].')
    return Wishes(checked_address(str(webhook)), tuple(command))


def checked_address(webhook: str) -> str:
    """`webhook` as a usable address; '' is none. The NibbleError does not repeat it: it may hold a secret."""
    address = webhook.strip()
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and address.isascii()
    except ValueError:
        usable = False
    if address and (not usable or any(letter.isspace() for letter in address)):
        raise NibbleError("The webhook must be a full address starting with https:// or http://.")
    return address


def set_webhook(workspace: Workspace, webhook: str) -> None:
    """Save the address to post to, '' for none. It may hold a secret: only the owner may read the file."""
    address = checked_address(webhook)
    kept: Any = read_json(file_of(workspace))
    if not address and not file_of(workspace).exists():
        return
    write_json(file_of(workspace), {**(kept if isinstance(kept, dict) else {}), "webhook": address})
    file_of(workspace).chmod(0o600)


def file_of(workspace: Workspace) -> Path:
    """Where this is saved."""
    return workspace.state / "notify.json"


def tell_end(run: Run) -> None:
    """Notify the user how `run` ended, once, in a process of its own. Returns at once, and never fails."""
    is_wanted = file_of(Workspace(run.workspace)).exists() and not (run.dir / MARK).exists()
    if not is_wanted or run.status().state not in ENDED:
        return
    with contextlib.suppress(OSError):
        subprocess.Popen(
            **as_process("core.runs.notify", str(run.dir)),
            **apart(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def forget(run: Run) -> None:
    """`run` is resumed: its next end is notified too."""
    (run.dir / MARK).unlink(missing_ok=True)


def main(folder: str) -> int:
    """Notify about the run in `folder`, unless another process has. Errors become events of the run."""
    run = Run(Path(folder))
    try:
        (run.dir / MARK).open("x").close()
    except FileExistsError:
        return 0
    try:
        wanted = wishes(Workspace(run.workspace))
    except NibbleError as error:
        run.event("notify", str(error))
        return 1
    troubles = tell(wanted, facts(run))
    for trouble in troubles:
        run.event("notify", trouble)
    return int(bool(troubles))


def facts(run: Run) -> dict[str, Any]:
    """The notification about `run`; `eval_loss` in nats per token, None where nothing was measured."""
    status, result = run.status(), run.result()
    return {
        "run": run.id,
        "name": run.name,
        "state": status.state,
        "step": status.step,
        "total": status.total,
        "eval_loss": result.get("eval_loss"),
        "message": status.message,
    }


def tell(wanted: Wishes, event: dict[str, Any]) -> list[str]:
    """Post to the webhook and run the command. Returns the errors, as sentences without secrets."""
    troubles = []
    if wanted.webhook:
        troubles.append(_post(wanted.webhook, event))
    if wanted.command:
        troubles.append(_run(wanted.command, event))
    return [trouble for trouble in troubles if trouble]


def _post(webhook: str, event: dict[str, Any]) -> str:
    body = json.dumps(event, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "Nibble"}
    try:
        request = urllib.request.Request(webhook, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"The webhook rejected the message with status {error.code}."
    except TimeoutError:
        return f"The webhook did not answer within {LIMIT_SECONDS:.0f} seconds."
    except (OSError, ValueError, HTTPException) as error:  # an error's own words may repeat the address
        return f"The webhook could not be reached ({type(getattr(error, 'reason', error)).__name__})."


def _run(command: tuple[str, ...], event: dict[str, Any]) -> str:
    given = {f"NIBBLE_{key.upper()}": "" if value is None else str(value) for key, value in event.items()}
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **given},
        )
    except (OSError, ValueError) as error:
        return f"The command of notify.json could not be run: {getattr(error, 'strerror', None) or 'it is not valid'}."
    started = process_started(child.pid)
    try:
        code = child.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        end_tree(child.pid, started)
        return f"The command of notify.json took more than {LIMIT_SECONDS:.0f} seconds and was ended."
    return f"The command of notify.json ended with exit code {code}." if code else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
