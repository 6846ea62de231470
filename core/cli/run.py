"""`train`, `resume` and `stop`: start a run, go on with one, end one, and tell on standard error how it is."""

import argparse
import contextlib
import sys
import time
from typing import Any

from core.cli import code_consent
from core.cli import download as cli_download
from core.errors import RecipeError, RunError
from core.sizes import show_duration
from core.untrusted.paths import Reach
from core.workspace import Workspace

Result = dict[str, Any]
AGAIN = "Press Ctrl-C again to end it now; it can resume from its last checkpoint."
LOOK_EVERY_SECONDS = 1.0
RESULTS = ("final_loss", "eval_loss", "seconds", "tokens_per_second", "peak_bytes", "predicted_peak_bytes")


def add_run(command: argparse.ArgumentParser) -> None:
    """The run that a command is about."""
    command.add_argument("run_id", metavar="RUN", help="an id, the start of one, or 'last'")


def add_recipe(command: argparse.ArgumentParser) -> None:
    """The recipe that a command is about, and changes to it."""
    command.add_argument("recipe", metavar="RECIPE", help="a YAML file or a preset's name")
    command.add_argument("--set", action="append", metavar="KEY=VALUE", help="change a setting: lora.rank=32")


def train_arguments(command: argparse.ArgumentParser) -> None:
    """What `train` takes."""
    add_recipe(command)
    command.add_argument("--name", help="what to call the run")
    command.add_argument(
        "--machines", type=int, default=1, metavar="N", help="train on N machines: print the command for each"
    )
    command.add_argument("--address", help="address of the first machine")
    command.add_argument("--port", type=int, default=29500, help="port of the first machine")
    code_consent.add_argument(command)


def resume_arguments(command: argparse.ArgumentParser) -> None:
    """What `resume` takes."""
    add_run(command)
    command.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="change how long it trains, how fast, or what it may take: train.epochs, train.max_steps, "
        "train.learning_rate, budget, checkpoint.every_steps, checkpoint.every_minutes, checkpoint.keep",
    )


def train(options: argparse.Namespace) -> tuple[int, Result]:
    """Train a recipe. Returns the exit status, and the answer for --json."""
    from core.launch.submit import submit
    from core.launch.typed_input import load_typed
    from core.recipe import make_recipe
    from core.runs.supervisor import Supervisor

    workspace = Workspace.open(options.data_dir)
    recipe = load_typed(Reach.of(workspace), workspace, options.recipe, options.set)
    code_consent.agree_to_code(options, workspace, recipe.model)
    if options.name:
        recipe = make_recipe({**recipe.model_dump(), "name": options.name})
    if options.machines < 1:
        raise RecipeError(f"--machines {options.machines} is not valid; allowed: 1 or more.")
    if options.machines > 1 and not options.address:
        raise RecipeError("--machines needs --address: the name or address of the first machine.")
    if options.machines > 1:
        return _train_on_machines(recipe, workspace, options)
    supervisor = Supervisor(workspace)
    return _see_through(submit(recipe, workspace, supervisor), supervisor, 0.0)


def resume_run(options: argparse.Namespace) -> tuple[int, Result]:
    """Go on with a run. Returns the exit status, and the answer for --json."""
    from core.runs.find import find_run
    from core.runs.resume import resume
    from core.runs.supervisor import Supervisor

    workspace, began = Workspace.open(options.data_dir), time.time()
    supervisor = Supervisor(workspace)
    run = resume(find_run(workspace, options.run_id), supervisor, options.set)
    return _see_through(run, supervisor, began)


def _see_through(run: Any, supervisor: Any, since: float) -> tuple[int, Result]:
    """Wait for `run`, telling what it says from the moment `since` on; Ctrl-C stops it."""
    print(f"Run {run.id}", file=sys.stderr)
    try:
        state = _follow(run, supervisor, since)
    except KeyboardInterrupt:
        state = _stop_and_follow(run, supervisor)
    status = run.status()
    answer: Result = {"run": run.id, "dir": str(run.dir), "state": state}
    answer |= {"steps": status.step, **dict.fromkeys(RESULTS), **run.result()}
    answer["resumed_from_step"] = status.resumed_from_step
    print(status.message, file=sys.stderr)
    if state in ("finished", "stopped"):
        return 0, answer
    print(f"The log's last lines:\n{run.log_tail(10)}", file=sys.stderr)
    return 1, {**answer, "error": status.message}


def _stop_and_follow(run: Any, supervisor: Any) -> str:
    """Stop `run` and wait until it has; whoever does not want to wait presses Ctrl-C again. Returns its last state."""
    try:
        with contextlib.suppress(RunError):  # it has ended in that very moment
            print(f"{supervisor.stop(run)} {AGAIN}", file=sys.stderr)
        return _follow(run, supervisor, time.time())
    except KeyboardInterrupt:
        with contextlib.suppress(RunError):
            supervisor.kill(run)
        return str(run.status().state)


def stop_arguments(command: argparse.ArgumentParser) -> None:
    """What `stop` takes."""
    add_run(command)
    command.add_argument("--now", action="store_true", help="end it at once; it can resume from its last checkpoint")


def stop_run(options: argparse.Namespace) -> tuple[int, Result]:
    """Stop a run, or take it out of the queue, and wait until it has ended. Returns the exit status and the answer."""
    from core.runs.find import find_run
    from core.runs.supervisor import Supervisor

    workspace = Workspace.open(options.data_dir)
    run, supervisor = find_run(workspace, options.run_id), Supervisor(workspace)
    if options.now and run.status().state != "queued":
        supervisor.kill(run)
    else:
        print(supervisor.stop(run), file=sys.stderr)
        _await_stop(run, supervisor)
    status = run.status()
    message = status.message if not status.active else "It is still stopping."
    print(message, file=sys.stderr)
    return 0, {"run": run.id, "state": status.state, "message": message}


def _await_stop(run: Any, supervisor: Any) -> None:
    """Wait until `run` has stopped, and end it where it takes too long. Ctrl-C leaves it to itself."""
    from core.runs.heartbeat import stopping

    asked = stopping(run)
    if asked is not None:
        left = show_duration(asked.left_seconds)
        print(f"If it has not stopped in {left}, it is killed. Ctrl-C stops waiting.", file=sys.stderr)
    try:
        while run.status().active:
            supervisor.watch()
            time.sleep(0.1)
    except KeyboardInterrupt:
        return


def _train_on_machines(recipe: Any, workspace: Workspace, options: argparse.Namespace) -> tuple[int, Result]:
    from core.launch.machines import set_up

    run, commands = set_up(recipe, workspace, options.machines, options.address, options.port)
    print((run.dir / "machines.txt").read_text("utf-8"), file=sys.stderr)
    answer: Result = {"run": run.id, "dir": str(run.dir), "state": run.status().state, "steps": 0}
    return 0, {**answer, **dict.fromkeys(RESULTS), "commands": commands}


def _follow(run: Any, supervisor: Any, since: float) -> str:
    """Tell what the run says until it has ended; returns its last state."""
    from core.runs.store import OPEN
    from core.runs.tail import Tail

    metrics, events = Tail(run.dir / "metrics.jsonl"), Tail(run.dir / "events.jsonl")
    shown, looked, line = "", 0.0, cli_download.ProgressLine()
    while True:
        status = run.status()
        if status.active and status.message.startswith("Downloading "):
            line.show(status.message)
        else:
            line.end()
        for event in events.read():
            if event["time"] >= since:
                print(f"· {event['message']}", file=sys.stderr)
        for row in metrics.read():
            if row["time"] >= since:
                print(_metrics_line(row, status.total), file=sys.stderr)
        if status.state not in OPEN:
            return str(status.state)
        if time.monotonic() - looked >= LOOK_EVERY_SECONDS:
            looked, shown = time.monotonic(), _look_after(run, supervisor, shown)
        time.sleep(0.2)


def _look_after(run: Any, supervisor: Any, shown: str) -> str:
    """Start what can be started, and end what does not stop. Says what `run` waits for, or why it may hang.

    Returns what that was about; nothing is printed about what was `shown` last.
    """
    from core.runs.heartbeat import hanging

    supervisor.advance()
    about, message = "", ""
    if run.status().state == "queued":
        about = message = f"Queued. {supervisor.waits_for()}"
    elif why := hanging(run):
        about, message = "hanging", f"· {why}"
    if about and about != shown:
        print(message, file=sys.stderr)
    return about


def _metrics_line(row: dict[str, Any], total: int) -> str:
    if "eval_loss" in row:
        return f"step {row['step']:>5}   evaluation loss {_number(row['eval_loss'])}"
    speed = f"{row['tokens_per_second']:,.0f} tokens/s"
    return f"step {row['step']:>5} of {total}   loss {_number(row['loss'])}   {speed}"


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4f}"
