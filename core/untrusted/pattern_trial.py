"""A process that matches regular expressions against names, and is ended by a watchdog where that takes too long.

Python's `re` holds the interpreter while it matches: no other thread of the process gets to stop it. The watchdog is
faulthandler's, a thread that needs no interpreter. Run as a file by patterns.py; imports nothing of ours.

Standard input: {"patterns": [...], "names": [...], "seconds": 1.0}. Standard output: the number of each pattern before
it is tried. Exit status 0: all were matched; 1: not in time, or beyond Python's limits; 2: the last one is no pattern.
"""

import faulthandler
import json
import os
import re
import sys


def main() -> int:
    """Match each pattern against each name."""
    asked = json.load(sys.stdin)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (nothing more is imported than must be)
        faulthandler.dump_traceback_later(asked["seconds"], exit=True, file=nowhere)
        for number, given in enumerate(asked["patterns"]):
            print(number, flush=True)
            try:
                pattern = re.compile(given)
            except re.error:
                return 2
            except (RecursionError, OverflowError):
                return 1
            for name in asked["names"]:
                pattern.match(name)
                pattern.fullmatch(name)
        faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
