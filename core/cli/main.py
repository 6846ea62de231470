"""Every command of `python launch.py`. Each calls the functions that the app calls.

With --json a command prints exactly one JSON document on standard output; progress and logs go to standard error.
Exit status: 0 done; 1 what was asked failed, and a message says why; 2 the call itself was wrong.
"""

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from core.basemodel.code_consent import trust_only
from core.cli import arena, bench, code_consent, data, download, export, models, serve
from core.cli import run as cli_run
from core.errors import CallError, NibbleError
from core.system.library_warnings import hush
from core.system.process import child_environment
from core.text.library_errors import telling_line
from core.untrusted.paths import Reach
from core.workspace import Workspace

Result = dict[str, Any] | list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    parser = make_parser()
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in (*_COMMANDS, "-h", "--help"):  # no command means the app
        given = ["ui", *given]
    options = parser.parse_args(given)
    os.environ.update(child_environment())
    hush()
    trust_only(Workspace.open(options.data_dir))
    aside = contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext()
    try:
        with aside:  # libraries print what they like; the one document is alone on standard output
            status, result = options.run(options)
    except KeyboardInterrupt:
        _refuse("Interrupted.", options.json)
        return 1
    except NibbleError as error:
        _refuse(str(error), options.json)
        return 2 if isinstance(error, CallError) else 1
    except Exception as error:  # a defect of ours: the promise of one JSON document holds all the same
        traceback.print_exc()
        _refuse(f"{telling_line(error, kind=True)}. This is a bug in Nibble; please report it.", options.json)
        return 1
    if options.json and result is not None:
        print(json.dumps(result, ensure_ascii=False))
    return int(status)


def _refuse(message: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": message}, ensure_ascii=False))
    print(message, file=sys.stderr)


def _ui(options: argparse.Namespace) -> tuple[int, None]:
    from app.main import serve

    status = serve(
        Workspace.open(options.data_dir),
        port=options.port,
        listen=options.listen,
        auth=options.auth,
        browser=not options.no_browser,
        window=options.window,
        share=options.share,
        allowed=options.allow_path or [],
    )
    return status, None


def _doctor(options: argparse.Namespace) -> tuple[int, Result]:
    from core.sizes import show_size
    from core.system.doctor import doctor

    found = doctor(Workspace.open(options.data_dir))
    chosen, torch = found["device"], found["torch"]
    if not options.json:
        print(f"System     {found['system']}, Python {found['python']}")
        total, free = show_size(chosen["total_bytes"]), show_size(chosen["free_bytes"])
        print(f"Device     {chosen['name']} · {total}, {free} free")
        print(f"torch      {torch['version'] if torch else 'does not import'}")
        print(f"Computes   in {found['compute_dtype']}: {found['because']}")
        print(f"Disk       {found['disk']['free_bytes'] / 1e9:.0f} GB free")
        for note in found["notes"]:
            print(f"Note       {note}")
        for problem in found["problems"]:
            print(f"PROBLEM    {problem['what']}\n           Fix: {problem['mend']}")
        if not found["problems"]:
            print("No problems found.")
    return int(bool(found["problems"])), found


def _plan(options: argparse.Namespace) -> tuple[int, Result]:
    from core.launch.start_from import take_over
    from core.launch.typed_input import load_typed
    from core.memory.estimate import make_plan
    from core.sizes import show_duration, show_size

    overrides = [*(options.set or []), *([f"budget={options.budget}"] if options.budget else [])]
    workspace = Workspace.open(options.data_dir)
    recipe, _ = take_over(load_typed(Reach.of(workspace), workspace, options.recipe, overrides), workspace)
    code_consent.agree_to_code(options, workspace, recipe.model)
    found = make_plan(recipe, workspace, options.card).as_json()
    if not options.json:
        peak = found["peak_bytes"]
        print(f"{recipe.model}, rank {recipe.lora.rank}, on {options.card or 'this machine'}")
        word = "Fits" if found["fits"] else "Does not fit"
        print(f"{word}: {show_size(peak['process'])} at the peak, of a budget of {found['budget_read']}")
        for name, size in found["breakdown"].items():
            print(f"  {name:<16} {show_size(size):>12}")
        for reason in found["reasons"]:
            print(f"{reason['setting']}: {reason['value']}, because {reason['because']}")
        for what in found["assumed"]:
            print(f"Assumed  {what}")
        for way in found["ways"]:
            print(f"Instead  {way['change']}: {show_size(way['peak_bytes'])}{' (fits)' if way['fits'] else ''}")
        print(f"Smallest budget that would do: {show_size(found['smallest_budget_bytes'])}")
        if found["fits"]:
            pace = found["seconds_per_step"]
            print(f"Time, estimated: {f'{pace:.2g} s' if pace < 10 else show_duration(pace)} an optimizer step")
    return int(not found["fits"]), found


def _runs(options: argparse.Namespace) -> tuple[int, Result]:
    from core.runs.find import list_runs

    rows = []
    for run in list_runs(Workspace.open(options.data_dir)):
        status = run.status()
        about = {"run": run.id, "name": run.name, "dir": str(run.dir), "state": status.state}
        rows.append({**about, "step": status.step, "total": status.total, "created": run.created})
    if not options.json:
        for row in rows:
            print(f"{row['run']:<62} {row['state']:<12} {row['step']:>6} of {row['total']:<6} {row['name']}")
        if not rows:
            print("No runs yet. Train one: python launch.py train quickstart")
    return 0, rows


def _chat(options: argparse.Namespace) -> tuple[int, Result]:
    from core.chat.client import ChatClient
    from core.generation.sampling import Sampling
    from core.launch.typed_input import typed_chat_model
    from core.runs.chat_models import find_chat_model, without_adapter

    if not options.prompt.strip():
        raise CallError("--prompt is empty. Give a prompt.")
    workspace = Workspace.open(options.data_dir)
    key = options.run_id if ":" in options.run_id else f"run:{options.run_id}"
    model = find_chat_model(workspace, typed_chat_model(Reach.of(workspace), workspace, key))
    model = without_adapter(model) if options.base else model
    code_consent.agree_to_code(options, workspace, model.model, model.revision)
    chat = ChatClient(workspace)
    sampling = Sampling(options.max_new_tokens, options.greedy, seed=options.seed)
    print(f"Loading {model.label} …", file=sys.stderr)
    try:
        messages = [{"role": "user", "content": options.prompt}]
        shown = 0
        for reply in chat.stream(model, messages, sampling):  # noqa: B007 (the last one is what counts)
            if not options.json:
                print(reply.text[shown:], end="", flush=True)
                shown = len(reply.text)
    finally:
        chat.close()
    if not options.json:
        print()
    print(f"{reply.tokens} tokens, {reply.tokens_per_second:.1f} tokens/s", file=sys.stderr)
    answer = {name: getattr(reply, name) for name in ("text", "tokens", "tokens_per_second", "first_token_seconds")}
    return 0, answer


def _setup(options: argparse.Namespace) -> tuple[int, Result]:
    from core.setup import llama_cpp

    found = llama_cpp.version()
    if found is None:
        found = llama_cpp.install(lambda line: print(line, file=sys.stderr, flush=True))
    else:
        print(f"llama.cpp ({llama_cpp.PACKAGE} {found}) is installed.", file=sys.stderr)
    return 0, {"part": options.part, "version": found}


def _test(options: argparse.Namespace) -> tuple[int, None]:
    from tests.run import main as run_tests

    return run_tests(options.full, options.only or None), None


def make_parser() -> argparse.ArgumentParser:
    """All commands with their options; docs/commands.py writes its page from it."""
    parser = argparse.ArgumentParser(prog="python launch.py", description="Nibble: fine-tune in 4 bits.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (run, text, arguments) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name in _GROUPS:
            _GROUPS[name](command, _every_command)
            continue
        command.set_defaults(run=run)
        _every_command(command)
        if arguments is not None:
            arguments(command)
    return parser


def _every_command(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data-dir", metavar="DIR", help="the workspace; default: NIBBLE_DATA_DIR, else workspace/ beside launch.py"
    )
    command.add_argument("--json", action="store_true", help="one JSON document on standard output")


def _ui_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, help="default: 7860, or the next free one")
    command.add_argument(
        "--listen", action="store_true", help="also accept connections from other machines, behind a login"
    )
    command.add_argument(
        "--auth", metavar="USER:PASS", help="the login; default with --listen or --share: generated and printed once"
    )
    command.add_argument(
        "--allow-path",
        metavar="FOLDER",
        action="append",
        help="with --listen or --share: also allow this folder; can be repeated",
    )
    command.add_argument("--no-browser", action="store_true", help="only print the address")
    command.add_argument("--window", action="store_true", help="open in its own window")
    command.add_argument("--share", action="store_true", help="create a public link through Gradio, behind a login")


def _plan_arguments(command: argparse.ArgumentParser) -> None:
    cli_run.add_recipe(command)
    command.add_argument("--budget", metavar="SIZE", help="such as 12GiB, 12GB or 80%%")
    command.add_argument(
        "--card", metavar="NAME", help="plan for this card instead of this machine, such as rtx-4090-24gb"
    )
    code_consent.add_argument(command)


def _chat_arguments(command: argparse.ArgumentParser) -> None:
    models = "an id, the start of one, or 'last'; with /best or /checkpoint/STEP; or base:MODEL, adapter:FOLDER"
    command.add_argument("run_id", metavar="RUN", help=models)
    command.add_argument("--prompt", required=True, help="the prompt")
    command.add_argument("--base", action="store_true", help="use the base model, without the adapter")
    command.add_argument("--greedy", action="store_true", help="always pick the most likely token")
    command.add_argument("--max-new-tokens", type=_positive, default=256, metavar="N", help="length limit")
    command.add_argument("--seed", type=int, help="the same seed gives the same reply")
    code_consent.add_argument(command)


def _setup_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("part", choices=("llama-cpp",), help="llama-cpp: verifies exported GGUFs")


def _test_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--full", action="store_true", help="also run the slow tests")
    command.add_argument("only", nargs="*", metavar="PATH", help="only these tests")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not valid; allowed: 1 or more")
    return number


_GROUPS = {"data": data.add_arguments, "models": models.add_arguments, "arena": arena.add_arguments}
_Command = Callable[[argparse.Namespace], tuple[int, Any]]
_Arguments = Callable[[argparse.ArgumentParser], None]
_COMMANDS: dict[str, tuple[_Command | None, str, _Arguments | None]] = {
    "ui": (_ui, "open the app (the default without a command)", _ui_arguments),
    "doctor": (_doctor, "check this machine and report problems", None),
    "data": (None, "check a dataset before training, and see it as the model does", None),
    "plan": (_plan, "plan a recipe's memory and time within a budget", _plan_arguments),
    "download": (download.download_model, "download a model from Hugging Face in advance", download.add_arguments),
    "models": (None, "list, verify or delete the quantised copies of base models", None),
    "train": (cli_run.train, "train a recipe and wait until it ends", cli_run.train_arguments),
    "resume": (
        cli_run.resume_run,
        "resume a run from its last checkpoint, and wait until it ends",
        cli_run.resume_arguments,
    ),
    "stop": (cli_run.stop_run, "stop a run, save its progress, and wait until it has stopped", cli_run.stop_arguments),
    "runs": (_runs, "list all runs, newest first", None),
    "chat": (_chat, "send one prompt to a run's adapter or its base model", _chat_arguments),
    "serve": (
        serve.serve,
        "serve a run's adapter to other programs through the OpenAI API, on this machine unless --address is given",
        serve.add_arguments,
    ),
    "arena": (
        None,
        "compute Elo ratings from votes; import and export votes; prepare replies, and let a model judge them",
        None,
    ),
    "export": (
        export.export_run,
        "export a run as adapter, merged model, GGUF or for Ollama, verified against the chat",
        export.add_arguments,
    ),
    "import": (
        export.import_one,
        "import an adapter made elsewhere, to chat with, compare or train further",
        export.import_arguments,
    ),
    "push": (export.push_export, "upload an export to Hugging Face, private by default", export.push_arguments),
    "setup": (_setup, "install optional parts: llama-cpp, which verifies exported GGUFs", _setup_arguments),
    "bench": (bench.run_benchmark, "run a benchmark against a reference", bench.add_arguments),
    "test": (_test, "run the tests", _test_arguments),
}
