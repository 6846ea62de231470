"""What every command promises: with --json, exactly one document on standard output, whatever libraries print."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from core.cli import main as cli_main
from core.errors import NibbleError


def _prints(options: argparse.Namespace) -> tuple[int, Any]:
    print("{'loss': 1.0}")
    if options.data_dir == "too long":
        raise KeyboardInterrupt
    if options.data_dir == "nowhere":
        raise NibbleError("There is nothing there.")
    return 0, {"done": True}


@pytest.mark.parametrize(
    ("given", "document"),
    [
        ([], {"done": True}),
        (["--data-dir", "nowhere"], {"error": "There is nothing there."}),
        (["--data-dir", "too long"], {"error": "Interrupted."}),
    ],
)
def test_what_a_library_prints_is_not_beside_the_document(given, document, monkeypatch, capsys) -> None:
    monkeypatch.setitem(cli_main._COMMANDS, "runs", (_prints, "list all runs", None))
    cli_main.main(["runs", "--json", *given])
    said = capsys.readouterr()
    assert json.loads(said.out) == document
    assert "'loss'" in said.err


def test_for_a_person_it_is_printed_as_ever(monkeypatch, capsys) -> None:
    monkeypatch.setitem(cli_main._COMMANDS, "runs", (_prints, "list all runs", None))
    assert cli_main.main(["runs"]) == 0
    assert capsys.readouterr().out == "{'loss': 1.0}\n"


def test_a_plan_tells_a_person_the_time_that_its_document_holds(tmp_path, capsys) -> None:
    asked = ["plan", "quickstart", "--card", "rtx-3060-12gb", "--data-dir", str(tmp_path)]
    assert cli_main.main([*asked, "--json"]) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds_per_step"]
    assert cli_main.main(asked) == 0
    assert f"Time, estimated: {seconds:.2g} s an optimizer step" in capsys.readouterr().out
