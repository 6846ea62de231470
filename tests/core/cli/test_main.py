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
