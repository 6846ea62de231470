"""Secrets are planted wherever a person may have one; then all that was written, printed and served is searched."""

from __future__ import annotations

import base64
import http.server
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.main import Server
from app.server.guard import Guard
from core.arena.judge import Judge
from core.errors import NibbleError
from core.runs import notify
from core.workspace import ROOT, Workspace

# Where a secret is kept on purpose, for the owner's eyes only.
KEPT = {"state/token", "state/server.json", "state/notify.json"}


def forms(secret: str) -> list[bytes]:
    """A secret as it may stand in a file: as it is, and in base64, wherever it begins there."""
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)]
    return [raw, *shifted, base64.urlsafe_b64encode(raw)[:-4], raw.hex().encode()]


def found(folder: Path, planted: dict[str, str]) -> list[str]:
    """Every file below `folder` that holds one of the `planted` secrets, but for those that are there to hold it."""
    told = []
    for file in folder.rglob("*"):
        where = file.relative_to(folder).as_posix()
        if not file.is_file() or where.removeprefix("workspace/") in KEPT:
            continue
        content = file.read_bytes()
        told += [f"{what} in {where}" for what, secret in planted.items() if any(f in content for f in forms(secret))]
    return told


def refuse_open(workspace: Workspace) -> None:
    """What is kept on purpose is for its owner's eyes only."""
    if os.name != "nt":
        open_to_others = [name for name in KEPT if _mode(workspace.path / name) & 0o077]
        assert not open_to_others


def _mode(file: Path) -> int:
    return file.stat().st_mode if file.exists() else 0


def test_a_planted_secret_is_found_in_every_form(tmp_path: Path) -> None:
    """The search itself: what finds nothing proves nothing."""
    secret = f"hf_{secrets.token_hex(16)}"
    (tmp_path / "plain").write_text(f"token={secret}\n")
    for shift in range(3):
        (tmp_path / f"basic {shift}").write_bytes(base64.b64encode(b"user:"[: 3 + shift] + secret.encode() + b"tail"))
    (tmp_path / "innocent").write_text(secret[:-4])
    assert len(found(tmp_path, {"token": secret})) == 4


def test_the_door_tells_its_key_to_nobody(server: Server, guard: Guard) -> None:
    token, port = str(guard.door.token), guard.door.names.port
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        told = client.get("/", params={"token": token, "__theme": "dark"}).text
        told += "".join(client.get(path).text for path in ("/", "/config", "/gradio_api/info", "/theme.css"))
        told += client.get("/gradio_api/app_id").text
    assert len(told) > 10_000 and token not in told
    for folder in (server.context.workspace.path, server.uploads.files):
        assert found(folder, {"key": token}) == []
    refuse_open(server.context.workspace)


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers every request with a refusal that repeats all that it was sent."""

    def do_POST(self) -> None:
        """Refuse, and say why at length."""
        said = f"{self.headers['authorization']} {self.path} {self.headers}".encode()
        self.send_response(418, self.path)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of somebody who repeats what they are told."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as place:
        threading.Thread(target=place.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{place.server_address[1]}"
        place.shutdown()


def test_a_judge_that_repeats_its_key_does_not_bring_it_to_the_screen(echo: str) -> None:
    key = f"sk-{secrets.token_hex(16)}"
    judge = Judge(f"{echo}/v1", "judge", key)
    with pytest.raises(NibbleError) as refused:
        judge.decide("q", "a", "b")
    assert "418" in str(refused.value) and key not in str(refused.value) + repr(judge)


def test_a_webhook_that_repeats_its_address_or_cannot_be_reached_does_not_bring_it_into_an_event(echo: str) -> None:
    key = secrets.token_hex(16)
    for address in (
        f"{echo}/hook?key={key}",
        f"http://127.0.0.1:9/{key}",
        f"http://u:{key}@127.0.0.1:9/",
        f"nope:{key}",
    ):
        try:
            told = " ".join(notify.tell(notify.Wishes(notify.checked_address(address)), {"run": "r"}))
        except NibbleError as error:
            told = str(error)
        assert told and key not in told


@dataclass
class Planted:
    """A workspace and an environment with a secret in every place, and all that was printed."""

    folder: Path
    secrets: dict[str, str]
    environment: dict[str, str]
    printed: int = 0
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def workspace(self) -> Workspace:
        """The one that all work in."""
        return Workspace.open(self.folder / "workspace")

    def command(self, *arguments: str) -> list[str]:
        """A command of Nibble's on the workspace."""
        self.printed += 1
        return [sys.executable, "-m", "core.cli", *arguments, "--data-dir", str(self.workspace.path)]

    def run(self, *arguments: str) -> int:
        """Run a command to its end; what it prints is kept to be searched."""
        with (self.folder / f"printed {self.printed}").open("wb") as printed:
            done = subprocess.run(
                self.command(*arguments), env=self.environment, stdout=printed, stderr=printed, timeout=300, check=False
            )
        return done.returncode

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that stays; its first line is read, all that goes to standard error is kept."""
        errors = (self.folder / f"printed {self.printed}").open("wb")
        process = subprocess.Popen(
            self.command(*arguments), env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        self.started.append(process)
        return process


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    """Secrets in the environment, in Hugging Face's files, in the workspace, and on the command line."""
    names = ("token of the environment", "token in the file", "webhook key", "API key", "password")
    made = {name: f"{'hf_' if 'token' in name else ''}{secrets.token_hex(16)}" for name in names}
    home = tmp_path.parent / f"{tmp_path.name} home"
    home.mkdir()
    (home / "token").write_text(made["token in the file"])
    (home / "stored_tokens").write_text(f"[mine]\nhf_token = {made['token in the file']}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "NIBBLE_API_KEY": made["API key"]}
    environment |= {"HF_TOKEN": made["token of the environment"], "HF_DEBUG": "1"}
    planted = Planted(tmp_path, made, environment)
    notify.set_webhook(planted.workspace, f"http://127.0.0.1:9/hook?key={made['webhook key']}")
    yield planted
    for process in planted.started:
        process.kill()
        process.wait()


def _sign_in_and_look(planted: Planted, url: str) -> str:
    """What a page is given that has signed in, after a wrong password."""
    password = planted.secrets["password"]
    told = ""
    with httpx.Client(base_url=url, trust_env=False) as client:
        for given in (f"{password}x", password):
            told += client.post("/nibble/login", data={"name": "anna", "password": given}).text
        for path in (
            "/",
            "/config",
            "/gradio_api/info",
            "/gradio_api/startup-events",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, path
            told += answer.text
    return told


def _use_endpoint(planted: Planted) -> str:
    """What `serve` prints, and answers with the right key and with wrong ones."""
    serving = planted.start("serve", "last", "--json", "--port", "0")
    assert serving.stdout is not None
    told = serving.stdout.readline()
    url = json.loads(told)["url"]
    for key in (planted.secrets["API key"], planted.secrets["API key"] + "x", ""):
        request = urllib.request.Request(f"{url}/nowhere", headers={"Authorization": f"Bearer {key}"})
        try:
            urllib.request.urlopen(request, timeout=20)
        except urllib.error.HTTPError as error:
            told += error.read().decode()
    serving.send_signal(signal.SIGINT)
    serving.wait(60)
    return told


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="ends `serve` by SIGINT")
def test_no_secret_is_in_anything_that_is_written_printed_or_served(planted: Planted) -> None:
    app = planted.start("ui", "--no-browser", "--port", "0", "--auth", f"anna:{planted.secrets['password']}")
    assert app.stdout is not None
    line = app.stdout.readline()
    told = line + _sign_in_and_look(planted, line.split()[-1])
    assert planted.run("train", "quickstart", "--set", "model=nobody/nothing") != 0  # asks the Hub, with the token
    assert planted.run("train", "quickstart", "--set", "train.max_steps=2") == 0
    assert planted.run("export", "last", "--to", "adapter") == 0
    exported = next(planted.workspace.exports.iterdir())
    assert planted.run("push", str(exported), "--repo", "me/it", "--yes") != 0
    for command in ("doctor", "runs"):
        planted.run(command, "--json")
    told += _use_endpoint(planted)
    app.terminate()
    told += app.stdout.read()
    app.wait(60)
    (planted.folder / "served").write_text(told)
    assert found(planted.folder, planted.secrets) == []
    refuse_open(planted.workspace)
