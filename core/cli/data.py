"""`python launch.py data check|tokens`: what the Data tab shows, on the command line."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from core.untrusted.paths import Reach
from core.workspace import Workspace

Result = dict[str, Any] | list[dict[str, Any]]
_PARTS = {
    "check": "read every row, report problems, count the tokens",
    "tokens": "show one row as the model sees it, token by token",
}
_LISTED = 10
_STAGES = {"reading": "Reading", "tokens": "Counting tokens"}
_TRAINED, _PLAIN = "\x1b[32m", "\x1b[0m"


def add_arguments(command: argparse.ArgumentParser, as_every: Callable[[argparse.ArgumentParser], None]) -> None:
    """The two commands below `data`; `as_every` adds what every command takes."""
    parts = command.add_subparsers(metavar="check|tokens", required=True)
    check, tokens = (_part(parts, name, text) for name, text in _PARTS.items())
    for part, run in ((check, _check), (tokens, _tokens)):
        as_every(part)
        part.set_defaults(run=run)
        part.add_argument("file", metavar="FILE", help="a file, a folder of files, a sample, a Hugging Face dataset id")
        part.add_argument(
            "--model",
            default="starter",
            metavar="M",
            help="base model whose template and tokenizer are used (default: starter)",
        )
        part.add_argument(
            "--max-length", type=int, metavar="N", help="length limit of a conversation in tokens (default: 512)"
        )
        part.add_argument("--format", help="layout of the rows, if it is not detected")
        part.add_argument(
            "--set", action="append", metavar="KEY=VALUE", help="any data setting, such as data.train_on=everything"
        )
    check.add_argument("--sample", action="store_true", help="for a large file, count the tokens of a sample only")
    tokens.add_argument("--row", type=int, default=1, metavar="N", help="row number, starting at 1 (default: 1)")


def _part(parts: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return made


def _recipe(options: argparse.Namespace) -> Any:
    from core.launch.typed_input import typed_recipe
    from core.recipe import make_recipe, with_overrides

    values: dict[str, Any] = {"model": options.model, "data.path": options.file}
    if options.max_length is not None:
        values["data.max_length"] = options.max_length
    if options.format is not None:
        values["data.format"] = options.format
    workspace = Workspace.open(options.data_dir)
    return typed_recipe(Reach.of(workspace), workspace, make_recipe(with_overrides(values, options.set)))


def _check(options: argparse.Namespace) -> tuple[int, Result]:
    from core.basemodel.find import find_model
    from core.data.cache import PreparedCache
    from core.data.check import check
    from core.data.locate import locate
    from core.model.load import load_tokenizer
    from core.preflight.training import training_for

    workspace, recipe = Workspace.open(options.data_dir), _recipe(options)
    found = find_model(recipe.model)
    report = check(
        locate(recipe.data, workspace),
        recipe.data,
        load_tokenizer(found),
        training_for(recipe, workspace, found),
        progress=show_progress(),
        exact=not options.sample,
        cache=PreparedCache.of(workspace.path),
    ).as_json()
    if not options.json:
        _print(report)
    return 0, report


def _tokens(options: argparse.Namespace) -> tuple[int, Result]:
    from core.basemodel.find import find_model
    from core.data.dataset import load
    from core.data.locate import locate
    from core.data.preview import show_row
    from core.data.rendering.render import Renderer
    from core.data.rendering.template import Unrenderable
    from core.errors import DataError
    from core.model.load import load_tokenizer

    recipe = _recipe(options)
    file = locate(recipe.data, Workspace.open(options.data_dir))
    conversations = load(file, recipe.data)
    if not 1 <= options.row <= conversations.rows:
        raise DataError(f"{file.name} has rows 1 to {conversations.rows:,}; there is no row {options.row:,}.")
    conversation = next((each for each in conversations.usable if each.row == options.row), None)
    if conversation is None:
        reason = next(drop.reason for drop in conversations.dropped if drop.row == options.row)
        raise DataError(f"{file.name}, row {options.row:,} is not used: {reason}.")
    renderer = Renderer(load_tokenizer(find_model(recipe.model)), recipe.data)
    try:
        shown = show_row(renderer, conversation, recipe.data.max_length)
    except Unrenderable as error:
        raise DataError(f"{file.name}, row {options.row:,} is not used: {error}.") from None
    if not options.json:
        _print_tokens(shown, colour=sys.stdout.isatty())
    tokens: list[dict[str, Any]] = shown["tokens"]
    return 0, tokens


def show_progress() -> Callable[[str, float], None]:
    """Shows on a terminal which stage is at work, and the share of it that is done."""
    shown = ""

    def show(stage: str, share: float) -> None:
        nonlocal shown
        line = f"{_STAGES.get(stage, stage)}: {share:.0%}"
        if line != shown and sys.stderr.isatty():
            print(f"\r{line}  ", end="" if share < 1 else "\n", file=sys.stderr, flush=True)
        shown = line

    return show


def _print(report: dict[str, Any]) -> None:
    tokens = report["tokens"]
    print(f"{report['name']}: {report['format']} ({report['evidence']})")
    print(f"Laid out by {report['template']}")
    print(f"Rows      {report['rows']:,}: {report['usable']:,} usable, {len(report['dropped']):,} dropped")
    if report["splits"]:
        splits = report["splits"]
        print(
            f"Splits    {splits['train']:,} rows to train on, {splits['held_out']:,} held out, "
            f"{splits['left_alone']:,} left alone"
        )
    basis = "" if tokens["exact"] else f" (from a sample of {tokens['sample']:,} rows)"
    print(f"Tokens    {tokens['total']:,}, {tokens['trained']:,} of them trained on{basis}")
    print(f"Lengths   half {tokens['p50']:,} or less, 95 % {tokens['p95']:,} or less, longest {tokens['max']:,}")
    print(f"Limit     {report['max_length']:,} tokens: {report['truncated']:,} rows are cut")
    for other in report["suggestions"]:
        print(f"          {other['max_length']:,} tokens: {other['because']}")
    for drop in report["dropped"][:_LISTED]:
        print(f"  row {drop['row']:,} is not used: {drop['reason']}")
    if len(report["dropped"]) > _LISTED:
        print(f"  and {len(report['dropped']) - _LISTED:,} more")
    for finding in report["warnings"]:
        rows = ", ".join(f"{row:,}" for row in finding["rows"][:_LISTED])
        print(f"{finding['severity'].upper():<8}  {finding['code']}: {finding['message']} {finding['mend']}")
        if rows:
            print(f"          rows {rows}{' …' if finding['count'] > _LISTED else ''}")


def _print_tokens(shown: dict[str, Any], colour: bool) -> None:
    for token in shown["tokens"]:
        share = f", counts {token['weight']:g}" if "weight" in token else ""
        mark = f"trained{share}" if token["trained"] else ""
        start, end = (_TRAINED, _PLAIN) if colour and token["trained"] else ("", "")
        print(f"{token['id']!s:>12}  {start}{token['text']!r:<32}{end}  {mark}")
