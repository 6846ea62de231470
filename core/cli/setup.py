"""The `setup` command: parts that Nibble works without, installed on request into the Python that runs it."""

import argparse
import sys
from typing import Any

from core.setup import llama_cpp

PARTS = ("llama-cpp",)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `setup` takes."""
    command.add_argument("part", choices=PARTS, help="llama-cpp: verifies exported GGUFs")


def set_up(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Install the part, unless it is there. Returns the exit status, and what is installed."""
    found = llama_cpp.version()
    if found is None:
        found = llama_cpp.install(lambda line: print(line, file=sys.stderr, flush=True))
    else:
        print(f"llama.cpp ({llama_cpp.PACKAGE} {found}) is installed.", file=sys.stderr)
    return 0, {"part": options.part, "version": found}
