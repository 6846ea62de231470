"""The `export` command: a run's adapter, merged model, GGUF or Ollama folder, proved and put where it was asked for."""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from core.cli.run import add_run
from core.export.formats.registry import FORMATS
from core.export.shared.options import SETTINGS, ExportOptions
from core.untrusted.paths import Reach
from core.workspace import Workspace


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `export` takes."""
    add_run(command)
    command.add_argument("--to", required=True, choices=[each.name for each in FORMATS], help="export format")
    command.add_argument(
        "--from",
        dest="part",
        default="last",
        metavar="last|best|STEP",
        help="which adapter: the final one (default), the best one by evaluation loss, or a checkpoint",
    )
    command.add_argument("--out", metavar="DIR", help="a new or empty folder; default: in the workspace")
    for setting in SETTINGS:
        values = tuple(setting.choices)
        taken: dict[str, Any] = {"choices": values, "default": values[0]} if values else {"action": "store_true"}
        command.add_argument(setting.flag, dest=setting.field, help=setting.help, **taken)


def export_run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Export a run. Returns the exit status and the JSON answer: dir, files, bytes, verified; zip of an adapter."""
    from core.system.hardware import claim_card

    claim_card()
    from core.export.pipeline import export
    from core.export.proof.report import lines, sentence
    from core.export.shared.source import export_name, part_named
    from core.runs.find import find_run
    from core.sizes import show_bytes

    workspace = Workspace.open(options.data_dir)
    run = find_run(workspace, options.run_id)
    part = part_named(options.part)
    named = workspace.exports / f"{export_name(run, part)}-{options.to}"
    out = Reach.of(workspace).write(options.out, "The export's folder") if options.out else named
    settings = {setting.field: getattr(options, setting.field) for setting in SETTINGS}
    answer = export(workspace, run, ExportOptions(options.to, out.resolve(), part=part, **settings), _show_progress())
    proof = "\n".join([sentence(answer["verified"]), *(f"  {line}" for line in lines(answer["verified"]))])
    print(f"{show_bytes(answer['bytes'])} in {answer['dir']}\n{proof}", file=sys.stderr)
    if "command" in answer:
        print(f"To use it: {answer['command']}", file=sys.stderr)
    return 0, answer


def import_arguments(command: argparse.ArgumentParser) -> None:
    """What `import` takes."""
    command.add_argument("source", metavar="ADAPTER", help="a PEFT adapter folder, or a zip or tar of it")
    command.add_argument("--name", default="", help="its name in Nibble; default: the name of that folder or file")
    command.add_argument(
        "--base", default="", metavar="MODEL", help="its base model; default: the one the adapter names"
    )


def import_one(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Take in an adapter from elsewhere, for Chat and Arena."""
    from core.export.import_adapter import import_adapter

    workspace = Workspace.open(options.data_dir)
    source = Reach.of(workspace).read(options.source, "The adapter")
    made = import_adapter(workspace, source, options.name, options.base)
    print(f"{made.name} is here: Chat and Arena offer it.", file=sys.stderr)
    return 0, {"name": made.name, "dir": str(made)}


def push_arguments(command: argparse.ArgumentParser) -> None:
    """What `push` takes."""
    command.add_argument("folder", metavar="DIR", help="an export's folder")
    command.add_argument("--repo", required=True, metavar="NAME/MODEL", help="repository on Hugging Face")
    command.add_argument("--public", action="store_true", help="make it public; default: private")
    command.add_argument("--yes", action="store_true", help="upload; without this, only show what would be uploaded")


def push_export(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Show what would be uploaded, and with --yes upload it."""
    from core.export.push_to_hub import plan_upload, push

    folder = Reach.of(Workspace.open(options.data_dir)).read(options.folder, "The export's folder")
    upload = plan_upload(folder, options.repo, private=not options.public)
    for name, size in upload.files:
        print(f"{size:>14,}  {name}", file=sys.stderr)
    print(upload.heading, file=sys.stderr)
    address = push(upload) if options.yes else None
    print(address or "Nothing was uploaded yet. Add --yes to upload.", file=sys.stderr)
    names = [name for name, _ in upload.files]
    return 0, {"repo": upload.repo, "private": upload.private, "files": names, "bytes": upload.bytes, "url": address}


def _show_progress() -> Callable[[str, float | None], None]:
    """Shows on standard error how an export is: each new line at once, one that only counts now and then."""
    shown_at = 0.0

    def show(line: str, share: float | None) -> None:
        nonlocal shown_at
        if share is None or share >= 1 or time.monotonic() - shown_at >= 2:
            shown_at = time.monotonic()
            print(line if share is None else f"{line} ({share:.0%})", file=sys.stderr, flush=True)

    return show
