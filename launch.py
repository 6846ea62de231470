"""Nibble's one command: makes `.venv` beside this file, installs what is missing, and hands over to core.cli.

Standard library only. core/setup/state.py knows what `.venv` was made from, install.py beside it makes it,
and wheels.py says which torch this machine wants. When nothing is to be installed, this reads a few small
files and execs, so whatever is slow to import is imported where it is used.

This file keeps to what Python 3.6 can parse, so that an old Python shows a sentence and not a SyntaxError.
"""

import json
import os
import sys
from pathlib import Path


def python_problem(version: tuple, executable: str) -> str:
    """Say why this Python cannot run Nibble and what to do about it; empty if it can."""
    if (3, 11) <= tuple(version[:2]) <= (3, 13):
        return ""
    import shutil
    import subprocess

    here = f"Nibble needs Python 3.11 to 3.13; this is {version[0]}.{version[1]} at {executable}."
    for minor in ("3.13", "3.12", "3.11"):
        for command in ([["py", "-" + minor]] if os.name == "nt" else []) + [["python" + minor]]:
            if shutil.which(command[0]) and subprocess.call(command + ["-c", ""], stderr=subprocess.DEVNULL) == 0:
                name = " ".join(command)
                return f"{here} This machine has {name}: start Nibble with `{name} launch.py`."
    return f"{here} Install Python 3.13 (python.org, or your system's packages) and start Nibble with it."


HELP = """\
usage: python launch.py [options] [command ...]

Installs what Nibble needs into .venv beside this file, the first time and whenever requirements.txt changes,
then runs the command. Without a command it opens the app.

options of launch.py itself, anywhere on the line:
  --gpu N          use NVIDIA card N, numbered as nvidia-smi does; --gpu all leaves every card visible
                   (default: the card with most free memory)
  --skip-install   install and check nothing; without a .venv, use the current Python
  --reinstall      rebuild .venv

TORCH_INDEX_URL in the environment: take torch from that package index, whatever launch.py would have chosen.
docs/commands.md has every command with its options. `python launch.py ui --help` shows those of the app.
"""


class Options:
    """What launch.py takes for itself. The rest of the line is core.cli's."""

    def __init__(self, line: "list[str]") -> None:
        self.gpu = ""
        self.skip_install = "--skip-install" in line
        self.reinstall = "--reinstall" in line
        self.rest = []  # type: list[str]
        words = iter(line)
        for word in words:
            if word == "--gpu" or word.startswith("--gpu="):
                self.gpu = word[6:] if "=" in word else next(words, "")
                if self.gpu != "all" and not self.gpu.isdigit():
                    raise ValueError(f"--gpu takes a card's number or `all`, not {self.gpu!r}.")
            elif word not in ("--skip-install", "--reinstall"):
                self.rest.append(word)
        self.dev = [word for word in self.rest if not word.startswith("-")][:1] == ["test"]


def main(line: "list[str]") -> int:
    root = Path(__file__).resolve().parent
    if str(root) not in sys.path:  # as under PYTHONSAFEPATH
        sys.path.insert(0, str(root))
    from core.errors import NibbleError
    from core.setup import state

    try:
        options = Options(line)
        if options.rest[:1] in (["-h"], ["--help"]):
            print(HELP, flush=True)
            if not state.STAMP.exists():
                return 0
        announce_environment(state.VENV)
        if not options.skip_install and (options.reinstall or not state.ready(options.dev)):
            from core.setup import install

            install.run(options.dev, options.reinstall)
        python = state.PYTHON if state.PYTHON.exists() or not options.skip_install else Path(sys.executable)
        return hand_over(python, root, options)
    except (NibbleError, ValueError) as problem:
        state.say(str(problem))
        if "--json" in line:
            print(json.dumps({"error": str(problem)}))
        return 2 if isinstance(problem, ValueError) else 1
    except KeyboardInterrupt:
        state.say("stopped. An install that was under way is finished by the next start.")
        return 130


def announce_environment(venv: Path) -> None:
    from core.setup.state import say

    active = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if active and Path(active).resolve() != venv.resolve():
        say(f"the active environment ({active}) is left alone; Nibble uses its own, {venv}.")


def card_variables(gpu: str) -> "dict[str, str]":
    """The environment that picks the card: --gpu, else what is set already, else the freest of several."""
    from core.setup import state

    if gpu == "all" or (not gpu and "CUDA_VISIBLE_DEVICES" in os.environ):
        return {}
    stamp = state.read_stamp()
    if not gpu and stamp.get("cards", 0) > 1:
        from core.setup import wheels

        gpus, _, _ = wheels.find_nvidia()
        card = wheels.freest_card(gpus, stamp["cuda"])
        if card:
            gpu = str(card.number)
            state.say(f"using card {gpu}, {card.name}, with {card.free_mib} MiB free (--gpu chooses another).")
    # CUDA numbers the fastest card 0, unless it is told to number them as nvidia-smi does
    return {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpu else {}


def hand_over(python: Path, root: Path, options: Options) -> int:
    """Become core.cli, in the caller's folder, which PYTHONSAFEPATH (Python 3.11) keeps out of imports."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",  # Windows would print and read in a code page of its own
        **card_variables(options.gpu),
    }
    command = [str(python), "-m", "core.cli", *options.rest]
    if os.name != "nt":
        os.execve(command[0], command, environment)
    import subprocess

    with subprocess.Popen(command, env=environment) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # the child got it too, and ends in its own way
                continue


if __name__ == "__main__":
    sys.exit(python_problem(sys.version_info, sys.executable) or main(sys.argv[1:]))
