"""The `models` commands: which quantised copies of bases are kept on the disk; delete one, or read all of one."""

import argparse
from collections.abc import Callable
from typing import Any

from core.errors import CallError
from core.workspace import Workspace


def add_arguments(command: argparse.ArgumentParser, every: Callable[[argparse.ArgumentParser], None]) -> None:
    """What `models` takes; `every` adds what every command takes."""
    commands = command.add_subparsers(metavar="COMMAND", required=True)
    about = "list the quantised copies of base models, which make later loads faster"
    stores = commands.add_parser("stores", help=about, description=about[0].upper() + about[1:] + ".")
    one = stores.add_mutually_exclusive_group()
    one.add_argument("--delete", metavar="KEY", help="delete this one; the next load makes it again")
    one.add_argument("--verify", metavar="KEY", help="read this one whole, and compare it with what was written")
    every(stores)
    stores.set_defaults(run=show_stores)


def show_stores(options: argparse.Namespace) -> tuple[int, Any]:
    """List the stores of the workspace, or do what is asked with one. Raises StoreError."""
    from core.basemodel.stores import delete_store, list_stores, stored, verify_store
    from core.sizes import show_bytes

    folder = Workspace.open(options.data_dir).quantised
    if options.delete is not None:
        freed = delete_store(folder, _key(options.delete))
        if not options.json:
            print(f"Deleted; {show_bytes(freed)} are free again. The next load of this base makes it again.")
        return 0, {"deleted": options.delete, "bytes": freed}
    if options.verify is not None:
        store = stored(folder, _key(options.verify))
        verify_store(store)
        if not options.json:
            print(f"The quantised copy of {store.label} is what was written.")
        return 0, {"verified": options.verify, "whole": True}
    rows = list_stores(folder)
    if not options.json:
        for each in rows:
            what = f"{each.bits} bits" if each.whole else "not whole"
            original = "" if each.original or not each.whole else ", its original files are gone"
            print(f"{each.key:<34} {show_bytes(each.bytes):>9}  {what:<10} {each.label}{original}")
        if not rows:
            print("No quantised copies yet. A run or a chat keeps one of any base of half a gigabyte or more.")
    return 0, [each.as_json() for each in rows]


def _key(given: str) -> str:
    if not given.strip():
        raise CallError("The key is empty. `models stores` lists the keys.")
    return given.strip()
