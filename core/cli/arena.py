"""`python launch.py arena …`: votes counted, kept, taken out, and answers made for voting later."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from core.cli.data import show_progress
from core.errors import NibbleError
from core.untrusted.paths import Reach
from core.workspace import Workspace

Result = dict[str, Any] | list[dict[str, Any]]
_MOST_REASONS = 5


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
        "file", metavar="FILE.csv", nargs="?", help="votes as model_a,model_b,winner; default: the workspace's votes"
    )
    part.add_argument(
        "--orderings",
        type=_count,
        metavar="N",
        help="number of random orderings to average over (default: 10,000, fewer for very many votes)",
    )
    part.add_argument("--seed", type=_seed, default=0, metavar="S", help="random seed")


def _elo(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.bradley_terry import bradley_terry
    from core.arena.elo import ORDERINGS, elo, orderings_for

    games, unreadable, reasons = _games(options)
    orderings = options.orderings or orderings_for(len(games))
    if orderings < ORDERINGS and not options.orderings:
        print(f"{len(games):,} votes: the mean over {orderings:,} orderings. --orderings sets more.", file=sys.stderr)
    ratings = elo(games, orderings, options.seed, partial(show_progress(), "Counting"))
    if not options.json:
        strengths = {each.model: each for each in bradley_terry(games)}
        width = max(5, *(len(rating.model) for rating in ratings))
        print(f"{'':>4} {'model':<{width}} {'Elo':>6}  {'95 % interval':<15} {'games':>7}  Bradley-Terry")
        for place, each in enumerate(ratings, start=1):
            strength = strengths[each.model]
            beside = f"{strength.rating:.0f}" if strength.rating is not None else f"none: it {strength.why}"
            interval = f"{each.low:.0f} to {each.high:.0f}"
            print(f"{place:>3}. {each.model:<{width}} {each.elo:>6.0f}  {interval:<15} {each.games:>7,}  {beside}")
    for reason in reasons[:_MOST_REASONS]:
        print(f"Not read: {reason}", file=sys.stderr)
    if unreadable > _MOST_REASONS:
        print(f"In all, {unreadable:,} rows could not be read.", file=sys.stderr)
    return 0, {"ratings": [vars(each) for each in ratings], "votes": len(games), "unreadable": unreadable}


def _games(options: argparse.Namespace) -> tuple[list[Any], int, list[str]]:
    """(the games, how many rows are none, why) of the file, or of the workspace. Raises NibbleError for no games."""
    from core.arena.votes import VoteBook, games_of
    from core.arena.votes_csv import read_table

    if options.file is not None:
        table = read_table(_reach(options).read(options.file, "The file of votes"))
        return table.games, table.unreadable, table.reasons
    book = VoteBook(Workspace.open(options.data_dir))
    games = games_of(book.refresh())
    if not games:
        raise NibbleError("This workspace has no votes yet. Vote in the Arena tab, or give a CSV file.")
    return games, book.unreadable, [f"{book.unreadable} lines of {book.path.name} are damaged."] * bool(book.unreadable)


def _votes_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument("--export", metavar="FILE.csv", help="write the votes to this file as model_a,model_b,winner")


def _votes(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.votes import KINDS, VoteBook
    from core.arena.votes_csv import write_table

    book = VoteBook(Workspace.open(options.data_dir))
    votes = book.refresh()
    result: dict[str, Any] = {"votes": len(votes), "unreadable": book.unreadable, "file": str(book.path)}
    result["by"] = {kind: sum(vote.kind == kind for vote in votes) for kind in KINDS}
    if options.export:
        target = _reach(options).write(options.export, "The file of votes")
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
        print(f"{book.unreadable:,} lines of {book.path} are damaged and not counted.", file=sys.stderr)
    return 0, result


def _import_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument("file", metavar="FILE.csv", help="votes as model_a,model_b,winner")


def _import(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.votes import VoteBook
    from core.arena.votes_csv import as_votes, read_table

    file = _reach(options).read(options.file, "The file of votes")
    table, book = read_table(file), VoteBook(Workspace.open(options.data_dir))
    book.add(as_votes(table.games, file, book.refresh()))
    if not options.json:
        print(table.summary)
    for reason in table.reasons[:_MOST_REASONS]:
        print(f"Not read: {reason}", file=sys.stderr)
    return 0, {"imported": len(table.games), "unreadable": table.unreadable, "reasons": table.reasons}


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is not valid; allowed: 0 or more")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{number} is not valid; allowed: 1 to 10,000,000")
    return number


def _answer_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="two or more models: a RUN, base (the base model under the first adapter given), base:<model>, "
        "adapter:<name>",
    )
    part.add_argument("--category", metavar="NAME", help="only this category of Nibble's prompts")
    part.add_argument("--held-out", metavar="RUN", help="use the validation split of this run instead")
    part.add_argument("--max-new-tokens", type=_count, default=256, metavar="N", help="length limit")
    part.add_argument("--greedy", action="store_true", help="always pick the most likely token")


def _answer(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.answers import AnswerBook
    from core.arena.batch_answers import SEED, Bulk
    from core.arena.match import contestants
    from core.chat.client import ChatClient
    from core.generation.sampling import Sampling
    from core.launch.typed_input import typed_chat_model
    from core.system.keep_awake import KeptAwake

    workspace, reach = Workspace.open(options.data_dir), _reach(options)
    client = ChatClient(workspace)
    bulk = Bulk(
        AnswerBook(workspace),
        client,
        contestants(workspace, [typed_chat_model(reach, workspace, _spelt(model)) for model in options.models]),
        _prompts(options, workspace),
        Sampling(options.max_new_tokens, options.greedy, seed=SEED),
    )
    try:
        with KeptAwake(lambda message: None):
            bulk.run(lambda: print(f"{bulk.done} of {bulk.total} answers", file=sys.stderr))
    except KeyboardInterrupt:
        print("Stopped. Finished replies are kept; run the same command to continue.", file=sys.stderr)
    finally:
        client.close()
    for reason in bulk.failed[:_MOST_REASONS]:
        print(f"Failed: {reason}", file=sys.stderr)
    done = bulk.done == bulk.total
    missing = {} if done else {"error": f"{bulk.total - bulk.done} of {bulk.total} replies could not be generated."}
    return int(not done), {"answers": bulk.done, "of": bulk.total, "failed": bulk.failed, **missing}


def _reach(options: argparse.Namespace) -> Reach:
    return Reach.of(Workspace.open(options.data_dir))


def _spelt(model: str) -> str:
    """A run may be named by itself, as in the other commands, and the base under the first model as `base`."""
    from core.arena.match import ITS_BASE

    if model == "base":
        return ITS_BASE
    return model if ":" in model else f"run:{model}"


def _prompts(options: argparse.Namespace, workspace: Workspace) -> list[Any]:
    """The questions to ask. Raises NibbleError for a category that there is not."""
    from core.arena.held_out import held_out
    from core.arena.prompts import categories, shipped

    if options.held_out:
        return held_out(workspace, options.held_out)
    names = [each.name for each in categories()]
    if options.category is not None and options.category not in names:
        raise NibbleError(f"There is no category {options.category!r}. Known: {', '.join(names)}.")
    return shipped(options.category)


def _judge_arguments(part: argparse.ArgumentParser) -> None:
    part.add_argument("--url", required=True, help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    part.add_argument("--model", required=True, help="the judge's model name at the endpoint")
    part.add_argument(
        "--key-from", default="NIBBLE_JUDGE_KEY", metavar="NAME", help="the environment variable that holds the key"
    )


def _judge(options: argparse.Namespace) -> tuple[int, Result]:
    from core.arena.answers import AnswerBook
    from core.arena.judge import Judge, Judging, position_bias
    from core.arena.match import waiting
    from core.arena.votes import VoteBook

    workspace = Workspace.open(options.data_dir)
    book, judge = VoteBook(workspace), Judge(options.url, options.model, os.environ.get(options.key_from, ""))
    pairs = waiting(AnswerBook(workspace).refresh(), book.refresh(), judge.name)
    if not pairs:
        raise NibbleError(
            "There are no prepared replies left for this judge. Prepare some first: python launch.py arena answer"
        )
    judging = Judging(book, judge, pairs)
    judging.run(lambda: print(f"{judging.done} of {len(pairs)} pairs", file=sys.stderr))
    bias = position_bias(vote for vote in book.refresh() if vote.judge == judge.name)
    print(
        f"{judging.done} pairs judged in both orders. Of {bias.pairs}, {bias.agree} were decided the same way in "
        f"both; the first reply won {bias.first} times, the second {bias.second}.",
        file=sys.stderr,
    )
    done = judging.done - judging.unread == len(pairs)
    unread = len(pairs) - judging.done + judging.unread
    missing = {} if done else {"error": f"{unread} of {len(pairs)} pairs have no readable verdict."}
    return int(not done), {"pairs": judging.done, "unread": judging.unread, "bias": vars(bias), **missing}


_Run = Callable[[argparse.Namespace], tuple[int, Result]]
_PARTS: dict[str, tuple[_Run, str, Callable[[argparse.ArgumentParser], None]]] = {
    "elo": (_elo, "Elo ratings from a file of votes, as in the QLoRA paper", _elo_arguments),
    "votes": (_votes, "count the votes of this workspace; export them as CSV", _votes_arguments),
    "import": (_import, "import votes from a CSV file into this workspace", _import_arguments),
    "answer": (_answer, "let models reply to a set of prompts now, to vote on later", _answer_arguments),
    "judge": (_judge, "let a model behind an endpoint judge the prepared replies, in both orders", _judge_arguments),
}
