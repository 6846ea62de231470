"""`--agree-to-code MODEL`: let that model's own code run, with what runs shown on standard error."""

import argparse
import sys

from core.errors import RecipeError
from core.workspace import Workspace


def add_argument(command: argparse.ArgumentParser) -> None:
    """The flag of the commands that load a model."""
    command.add_argument(
        "--agree-to-code",
        metavar="MODEL",
        help="allow the Python code that comes with MODEL to run with all your rights; lists its files and covers "
        "only these",
    )


def agree_to_code(options: argparse.Namespace, workspace: Workspace, model: str, revision: str | None = None) -> None:
    """Keep the agreement that the command line gives for `model`, and say to what. Raises RecipeError, ModelError."""
    from core.basemodel.code_consent import agree, code_of
    from core.basemodel.find import find_model

    if options.agree_to_code is None:
        return
    found = find_model(model, revision)
    if options.agree_to_code not in (model, found.source):
        raise RecipeError(f"--agree-to-code names {options.agree_to_code}, but the model is {model}. Nothing was run.")
    code = code_of(found)
    if code is None:
        print(f"{found.label} needs no code of its own.", file=sys.stderr)
        return
    print(f"You allow the code of {code.named} to run on this machine with all your rights:", file=sys.stderr)
    for file in code.files:
        print(f"  {file.sha256}  {len(file.content):>9,} bytes  {file.name!r}", file=sys.stderr)
    agree(workspace, code)
    print(
        f"They are stored in {workspace.state / 'trust' / code.digest}. If they change, you are asked again.",
        file=sys.stderr,
    )
