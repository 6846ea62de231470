"""The app as a process: one a workspace, its address on one line, and a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app import main
from app.server import instance as server_instance
from core.errors import NibbleError
from core.system.addresses import Names
from core.workspace import ROOT, Workspace


def _start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--data-dir", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


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
        f"Port {port} is in use by another program. Choose another with --port, or leave it out."
    )


def test_without_a_wish_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_instance, "FIRST_PORT", port)
            assert server_instance.choose_port(None) > port


@pytest.mark.parametrize("auth", ["nopassword", ":x", "x:", ":", " :x", ""])
def test_a_login_that_is_none_is_refused(tmp_path: Path, auth: str) -> None:
    for flags in ({}, {"listen": True}, {"share": True}):
        with pytest.raises(NibbleError, match="--auth"):
            main.serve(Workspace.open(tmp_path), auth=auth, **flags)


def test_others_are_let_in_only_behind_a_login_which_is_made_up_where_none_is_given() -> None:
    assert main.name_and_password(None, others=False) == ("nibble", "")
    name, password = main.name_and_password(None, others=True)
    assert name == "nibble" and len(password) > 20 and main.name_and_password(None, others=True)[1] != password
    assert main.name_and_password("anna:a:b c", others=True) == ("anna", "a:b c")


def test_a_password_that_was_made_up_is_told_once_and_a_given_one_never(capsys: pytest.CaptureFixture[str]) -> None:
    names = Names(7860, listen=True)
    main.tell_others(names, share=False, generated="made-up")
    assert capsys.readouterr().out.count("made-up") == 1
    names.tunnel = "a1b2c3.gradio.live"
    main.tell_others(names, share=True, generated="")
    told = capsys.readouterr().out
    assert "https://a1b2c3.gradio.live/" in told and "Sign in" not in told


def test_a_folder_to_allow_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(NibbleError, match="--allow-path"):
        main.serve(Workspace.open(tmp_path), listen=True, allowed=[str(tmp_path / "nowhere")])


def test_a_server_that_died_does_not_block_the_next(tmp_path: Path) -> None:
    instance = server_instance.Instance(Workspace.open(tmp_path))
    instance.announce("http://127.0.0.1:1/")
    assert instance.running() == "http://127.0.0.1:1/"
    (tmp_path / "state" / "server.json").write_text('{"pid": 4194304, "started": 1.0, "url": "http://127.0.0.1:1/"}')
    assert instance.running() is None
