"""A person who is away is told of a run's end, once, and nothing that goes wrong with that touches the run."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import NibbleError
from core.recipe import make_recipe
from core.runs import notify
from core.runs.create import create_run
from core.runs.store import Run
from core.runs.tail import Tail
from core.workspace import Workspace, write_json

SECRET = "a-secret-of-mine"


class Mailbox(http.server.BaseHTTPRequestHandler):
    """Takes what is posted; answers with the status that the path names, `slow` after a second."""

    posted: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append({"type": self.headers["Content-Type"], **json.loads(body)})
        if "slow" in self.path:
            time.sleep(1.0)
        self.send_response(500 if "500" in self.path else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    Mailbox.posted = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mailbox)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{SECRET}", Mailbox.posted
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create_run(Workspace.open(tmp_path), make_recipe({"name": "Pirate"}), {"file": "", "sha256": "", "name": ""})
    made.write_status(state="finished", step=40, total=40, message="Finished after 40 steps.")
    write_json(made.dir / "result.json", {"eval_loss": 1.25})
    return made


def _wish(run: Run, **values: Any) -> None:
    write_json(notify.file_of(Workspace(run.workspace)), values)


def _events(run: Run) -> str:
    return "\n".join(row["message"] for row in Tail(run.dir / "events.jsonl").read())


def _script(folder: Path, text: str) -> list[str]:
    (folder / "script.py").write_text(text)
    return [sys.executable, str(folder / "script.py")]


def test_the_webhook_gets_the_run_as_json_once(run: Run, mailbox: tuple[str, list[dict[str, Any]]]) -> None:
    address, posted = mailbox
    _wish(run, webhook=address)
    assert notify.main(str(run.dir)) == 0
    assert notify.main(str(run.dir)) == 0, "another process was first"
    said = {"run": run.id, "name": "Pirate", "state": "finished", "step": 40, "total": 40, "eval_loss": 1.25}
    assert posted == [{"type": "application/json; charset=utf-8", **said, "message": "Finished after 40 steps."}]
    notify.forget(run)
    notify.main(str(run.dir))
    assert len(posted) == 2, "it went on, and has ended again"
    assert _events(run) == ""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/500", "The webhook rejected the message with status 500"),
        ("/slow", "did not answer within"),
        (None, "could not be reached"),
    ],
)
def test_a_webhook_that_fails_is_an_event_without_its_address(
    run: Run, mailbox: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, path: str | None, told: str
) -> None:
    monkeypatch.setattr(notify, "LIMIT_SECONDS", 0.3)
    _wish(run, webhook=f"http://127.0.0.1:9/{SECRET}" if path is None else mailbox[0] + path)
    assert notify.main(str(run.dir)) == 1
    assert told in _events(run) and SECRET not in _events(run)
    assert run.status().state == "finished"


@pytest.mark.parametrize(
    "webhook", [f"ftp://host/{SECRET}", SECRET, f"http:///{SECRET}", f"http://ho st/{SECRET}", f"http://[/{SECRET}"]
)
def test_an_address_that_cannot_be_one_is_refused_and_not_repeated(run: Run, webhook: str) -> None:
    with pytest.raises(NibbleError, match="starting with https://") as refused:
        notify.set_webhook(Workspace(run.workspace), webhook)
    assert SECRET not in str(refused.value)
    _wish(run, webhook=webhook)
    assert notify.main(str(run.dir)) == 1
    assert SECRET not in _events(run) and "starting with https://" in _events(run)


def test_the_command_gets_its_values_by_the_environment_and_no_shell(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = f"import json, os, sys; open({str(out)!r}, 'w').write(json.dumps([dict(os.environ), sys.argv[1:]]))"
    _wish(run, command=[*_script(tmp_path, text), "$(echo hi); exit 3"])
    assert notify.main(str(run.dir)) == 0
    given, words = json.loads(out.read_text())
    assert words == ["$(echo hi); exit 3"]
    assert (given["NIBBLE_STATE"], given["NIBBLE_NAME"], given["NIBBLE_EVAL_LOSS"]) == ("finished", "Pirate", "1.25")


@pytest.mark.parametrize(
    ("text", "told"),
    [("raise SystemExit(3)", "ended with exit code 3"), ("import time; time.sleep(60)", "more than 0 seconds and was")],
)
def test_a_command_that_fails_is_an_event(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setattr(notify, "LIMIT_SECONDS", 0.4)
    _wish(run, command=_script(tmp_path, text))
    assert notify.main(str(run.dir)) == 1
    assert told in _events(run)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"command": ["no-such-program-here"]}, "could not be run: No such file"),
        ({"command": "notify-send Nibble"}, "must be a list of words"),
        ({"command": ["a\0b"]}, "could not be run"),
    ],
)
def test_wishes_that_cannot_be_met_are_an_event(run: Run, wishes: dict[str, Any], told: str) -> None:
    _wish(run, **wishes)
    assert notify.main(str(run.dir)) == 1
    assert told in _events(run)


def test_a_damaged_file_of_wishes_is_an_event(run: Run) -> None:
    notify.file_of(Workspace(run.workspace)).write_text("{half")
    assert notify.main(str(run.dir)) == 1
    assert "is not valid JSON" in _events(run)


def test_the_address_is_kept_beside_the_command_for_the_owner_alone(run: Run) -> None:
    workspace = Workspace(run.workspace)
    assert notify.wishes(workspace) == notify.Wishes()
    _wish(run, command=["ring"])
    notify.set_webhook(workspace, " https://example.org/x ")
    assert notify.wishes(workspace) == notify.Wishes("https://example.org/x", ("ring",))
    if os.name == "posix":
        assert notify.file_of(workspace).stat().st_mode & 0o077 == 0


def test_it_is_told_by_a_process_of_its_own(run: Run, mailbox: tuple[str, list[dict[str, Any]]]) -> None:
    address, posted = mailbox
    notify.tell_end(run)
    assert not (run.dir / notify.MARK).exists(), "nobody wants to be told"
    _wish(run, webhook=address + "/slow")
    began = time.monotonic()
    notify.tell_end(run)
    assert time.monotonic() - began < 0.5
    while not posted:
        assert time.monotonic() - began < 20
        time.sleep(0.02)
    assert posted[0]["state"] == "finished"


def test_a_webhook_that_answers_nonsense_is_told_and_the_command_runs_all_the_same(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"what?\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        said = notify.tell(
            notify.Wishes(address, (sys.executable, "-c", f"open({str(tmp_path / 'told')!r}, 'w')")), {"run": "x"}
        )
    assert said == ["The webhook could not be reached (BadStatusLine)."]
    assert (tmp_path / "told").exists()
