"""The app as a process: one a workspace, its address on one line, and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from app import main, opening
from core.errors import NibbleError
from core.workspace import ROOT, Workspace


def _start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--data-dir", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_SHARE": "true", "GRADIO_ALLOWED_PATHS": "/"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    """An app that runs: its workspace, its address, its process."""
    folder = tmp_path_factory.mktemp("served")
    process = _start(folder, "--port", "0")
    url = _line(process).split()[-1]
    yield folder, url, process
    process.kill()
    process.wait()


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_printed_address_opens_it_and_without_the_token_it_stays_shut(
    served: tuple[Path, str, subprocess.Popen[str]],
) -> None:
    _, url, _ = served
    assert url.startswith("http://127.0.0.1:") and "/?token=" in url
    bare = url.partition("?")[0]
    assert _status(url) == 200
    assert _status(bare) == 401
    assert _status(f"{bare}config") == 401
    assert _status(f"{bare}gradio_api/file=/etc/hostname") == 401
    assert _status(f"{bare}manifest.json") == 200


def test_no_file_of_the_machine_is_served_whatever_the_environment_asks(
    served: tuple[Path, str, subprocess.Popen[str]],
) -> None:
    folder, url, _ = served
    bare, _, query = url.partition("?")
    for path in ("/etc/hostname", str(ROOT / "README.md"), str(folder / "state" / "token")):
        assert _status(f"{bare}gradio_api/file={quote(path)}?{query}") in (403, 404)
    for page in ("docs", "openapi.json", "redoc"):
        assert _status(f"{bare}{page}?{query}") == 404


def test_a_second_start_on_the_same_workspace_finds_the_first(
    served: tuple[Path, str, subprocess.Popen[str]],
) -> None:
    folder, url, _ = served
    second = _start(folder)
    assert _line(second).endswith(url)
    assert second.wait(timeout=60) == 0


def test_it_ends_when_it_is_told_to(tmp_path: Path) -> None:
    process = _start(tmp_path, "--port", "0")
    assert _line(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    assert Workspace.open(tmp_path).path.joinpath("state", "server.json").exists() is False


def test_a_port_that_is_taken_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = _start(tmp_path, "--port", str(port))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1] == (
        f"Port {port} is taken by another program. Give another --port, or none."
    )


def test_without_a_wish_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(opening, "FIRST_PORT", port)
            assert opening.choose_port(None) > port


@pytest.mark.parametrize("flags", [{"listen": True}, {"share": True}, {"auth": "nopassword"}, {"auth": ":x"}])
def test_others_are_let_in_only_behind_a_login(tmp_path: Path, flags: dict[str, object]) -> None:
    with pytest.raises(NibbleError, match="--auth"):
        main.serve(Workspace.open(tmp_path), **flags)  # type: ignore[arg-type]


def test_a_server_that_died_does_not_block_the_next(tmp_path: Path) -> None:
    instance = opening.Instance(Workspace.open(tmp_path))
    instance.announce("http://127.0.0.1:1/")
    assert instance.running() == "http://127.0.0.1:1/"
    (tmp_path / "state" / "server.json").write_text('{"pid": 4194304, "started": 1.0, "url": "http://127.0.0.1:1/"}')
    assert instance.running() is None
