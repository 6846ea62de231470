"""Writes docs/commands.md: every command with its arguments, as the command line itself describes them.

python docs/commands.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.cli.main import make_parser  # noqa: E402

PAGE = ROOT / "docs" / "commands.md"
EVERYWHERE = ("--help", "--data-dir", "--json")
# Variables of the environment that a person may want to set; tests/test_docs.py holds that the code reads each.
VARIABLES = {
    "NIBBLE_DATA_DIR": "the workspace, if `--data-dir` does not name one",
    "NIBBLE_API_KEY": "the key of `serve`, if there is no `--key-file`; without either, every start makes a new key",
    "NIBBLE_JUDGE_KEY": "the key of the endpoint that `arena judge` asks",
    "HF_TOKEN": "a Hugging Face token, for gated models and uploads on a machine where you cannot open the System tab",
    "HF_HOME": "where downloaded models are kept; default: `~/.cache/huggingface`, on Windows "
    "`%USERPROFILE%\\.cache\\huggingface`",
    "HF_HUB_OFFLINE": "1: download nothing",
    "TORCH_INDEX_URL": "take torch from that package index ([install.md](install.md))",
    "CUDA_VISIBLE_DEVICES": "which NVIDIA card to use, as CUDA understands it; `--gpu N` is simpler",
}


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """docs/commands.md."""
    variables = "\n".join(f"| `{name}` | {use} |" for name, use in VARIABLES.items())
    return "\n\n".join(
        [
            "# Commands",
            "Written by `python docs/commands.py`, never by hand.",
            "`python launch.py COMMAND`; without a command it opens the app, and takes the options of `ui`. Every "
            "command takes, after its name, `--data-dir DIR` (the workspace), `--json` (one JSON document on standard "
            "output, progress on standard error; `ui` and `test` print none) and `--help`. `launch.py` itself takes "
            "`--gpu`, `--skip-install` and `--reinstall` ([install.md](install.md)).",
            "Exit status: 0 done; 1 what was asked failed, and a message says why; 2 the call itself was wrong.",
            "Names of recipes, models, cards and samples, and the keys for `--set`, are in [settings.md](settings.md). "
            "A run is named by its id, the start of it, or `last`.",
            *_commands("", make_parser()),
            "## Environment variables",
            'In PowerShell: `$env:HF_HOME = "D:\\models"`, for that window; in a Unix shell: `export '
            "HF_HOME=/mnt/models`.",
            f"| variable | for what |\n|---|---|\n{variables}\n",
        ]
    )


def _commands(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The sections of a command, or of those below it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, command in action.choices.items():
            yield from _commands(f"{name} {word}".strip(), command)
    if not below:
        arguments = [action for action in parser._actions if not set(EVERYWHERE) & set(action.option_strings)]
        yield f"## {' '.join([name, *(_shown(each) for each in arguments if not each.option_strings)])}".rstrip()
        yield str(parser.description)
        if arguments:
            rows = "\n".join(f"| `{_called(each)}` | {_about(each)} |" for each in arguments)
            yield f"| argument | |\n|---|---|\n{rows}"


def _called(action: argparse.Action) -> str:
    """An argument as one types it, for a cell of a table."""
    words = [*action.option_strings[:1], *([_shown(action)] if action.nargs != 0 else [])]
    return " ".join(words).replace("|", "\\|")


def _shown(action: argparse.Action) -> str:
    name = "|".join(map(str, action.choices)) if action.choices and action.metavar is None else action.metavar
    name = str(name or action.dest.upper())
    return {"?": f"[{name}]", "*": f"[{name} …]", "+": f"{name} …"}.get(str(action.nargs), name)


def _about(action: argparse.Action) -> str:
    """Its help, and what the help does not say: the default, or that it is needed."""
    text = str(action.help) % {"prog": "python launch.py"}
    if "default" not in text and action.default not in (None, False, []):
        text += f"; default: {action.default}"
    return (text + "; needed" * bool(action.option_strings and action.required)).replace("<", "&lt;")


if __name__ == "__main__":
    raise SystemExit(main())
