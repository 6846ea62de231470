"""`python launch.py arena …`: votes counted, kept, taken out, and answers made for voting later."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import NibbleError
from core.workspace import Workspace

Result = dict[str, Any] | list[dict[str, Any]]
_TOLD = 5


def add_arguments(command: argparse.ArgumentParser, as_every: Callable[[argparse.ArgumentParser], None]) -> None:
    """The commands below `arena`; `as_every` adds what every command takes."""
    parts = command.add_subparsers(metavar="elo|votes|import|answer|judge", required=True)
    for name, (run, text, arguments) in _PARTS.items():
        part = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        as_every(part)
        part.set_defaults(run=run)
        arguments(part)


def _elo_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "file", metavar="FILE.csv", nargs="?", help="votes as model_a,model_b,winner; default: the workspace's own"
    )
    part.add_argument("--orderings", type=_count, default=10_000, metavar="N", help="the mean over so many")
    part.add_argument("--seed", type=int, default=0, metavar="S", help="for what is drawn at random")


def _elo(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.bradley_terry import bradley_terry
    from core.arena.elo import elo

    games, unreadable, reasons = _games(options)
    if options.seed < 0:
        raise NibbleError(f"--seed {options.seed} is not possible; allowed: 0 or more.")
    ratings = elo(games, options.orderings, options.seed, _tell_progress())
    if not options.json:
        strengths = {each.model: each for each in bradley_terry(games)}
        width = max(5, *(len(rating.model) for rating in ratings))
        print(f"{'':>4} {'model':<{width}} {'Elo':>6}  {'95 % interval':<15} {'games':>7}  Bradley-Terry")
        for place, each in enumerate(ratings, start=1):
            strength = strengths[each.model]
            beside = f"{strength.rating:.0f}" if strength.rating is not None else f"none: it {strength.why}"
            interval = f"{each.low:.0f} to {each.high:.0f}"
            print(f"{place:>3}. {each.model:<{width}} {each.elo:>6.0f}  {interval:<15} {each.games:>7,}  {beside}")
    for reason in reasons[:_TOLD]:
        print(f"Not read: {reason}", file=sys.stderr)
    if unreadable > _TOLD:
        print(f"In all, {unreadable:,} rows could not be read.", file=sys.stderr)
    return 0, {"ratings": [vars(each) for each in ratings], "votes": len(games), "unreadable": unreadable}


def _games(options: argparse.Namespace) -> tuple[list[Any], int, list[str]]:
    """(the games, how many rows are none, why) of the file, or of the workspace. Raises NibbleError for no games."""
    from core.arena.table import read_table
    from core.arena.votes import VoteBook, games_of

    if options.file is not None:
        table = read_table(Path(options.file).expanduser())
        return table.games, table.unreadable, table.reasons
    book = VoteBook(Workspace.open(options.data_dir))
    games = games_of(book.refresh())
    if not games:
        raise NibbleError("There are no votes in this workspace yet. Vote in the Arena tab, or give a CSV file.")
    return games, book.unreadable, [f"{book.unreadable} lines of {book.path.name} are damaged."] * bool(book.unreadable)


def _votes_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument("--export", metavar="FILE.csv", help="write them there as model_a,model_b,winner")


def _votes(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.table import write_table
    from core.arena.votes import KINDS, VoteBook

    book = VoteBook(Workspace.open(options.data_dir))
    votes = book.refresh()
    result: dict[str, Any] = {"votes": len(votes), "unreadable": book.unreadable, "file": str(book.path)}
    result["by"] = {kind: sum(vote.kind == kind for vote in votes) for kind in KINDS}
    if options.export:
        target = Path(options.export).expanduser()
        try:
            target.write_text(write_table(votes), encoding="utf-8")
        except OSError as error:
            raise NibbleError(f"{target} cannot be written: {error.strerror or error}.") from None
        result["exported"] = str(target)
    if not options.json:
        print(f"{len(votes):,} votes: " + ", ".join(f"{count:,} by {kind}" for kind, count in result["by"].items()))
        if options.export:
            print(f"Written to {options.export}")
    if book.unreadable:
        print(f"{book.unreadable:,} lines of {book.path} are damaged and count nowhere.", file=sys.stderr)
    return 0, result


def _import_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument("file", metavar="FILE.csv", help="votes as model_a,model_b,winner")


def _import(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.table import as_votes, read_table
    from core.arena.votes import VoteBook

    file = Path(options.file).expanduser()
    table, book = read_table(file), VoteBook(Workspace.open(options.data_dir))
    book.add(as_votes(table.games, file, book.refresh()))
    if not options.json:
        print(table.summary)
    for reason in table.reasons[:_TOLD]:
        print(f"Not read: {reason}", file=sys.stderr)
    return 0, {"imported": len(table.games), "unreadable": table.unreadable, "reasons": table.reasons}


def _tell_progress() -> Callable[[float], None]:
    """A line that says how far the counting is, on a terminal."""

    def tell(share: float) -> None:
        if sys.stderr.isatty():
            print(f"\rCounting: {share:.0%} ", end="" if share < 1 else "\n", file=sys.stderr, flush=True)

    return tell


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{number} is not possible; allowed: 1 to 10,000,000")
    return number


_Run = Callable[[argparse.Namespace], tuple[int, Result]]
_PARTS: dict[str, tuple[_Run, str, Callable[[argparse.ArgumentParser], None]]] = {
    "elo": (_elo, "the Elo of a file of votes, as QLoRA's paper counts it", _elo_arguments),
    "votes": (_votes, "how many votes this workspace has; take them out as CSV", _votes_arguments),
    "import": (_import, "add the votes of a CSV file to this workspace", _import_arguments),
}
