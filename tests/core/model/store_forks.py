"""Loads a base through its store in forks, of which the nth is killed, or finds the disk full, at its nth call.

python -m tests.core.model.store_forks BASE STORES (kill|full) [each|NUMBER…] prints a JSON line for each fork: one for
each call, with `each` every single write among them, or for the calls with these numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from core.basemodel.find import find_model
from core.basemodel.store_index import StoreError
from core.basemodel.stores import WEIGHTS, delete_store, list_stores, stored, verify_store
from core.model.load import load_base
from core.model.stored import Stores
from core.settings import QuantizationSettings
from core.system.hardware import Device
from tests.faults.files import Files, full_from, kill_at

CPU = Device("cpu", "a CPU", 2**33, 2**33, 0)


def in_fork(do: Callable[[], Any]) -> tuple[int, Any]:
    """The wait status of a fork that does this, and what it returned."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            with os.fdopen(write, "w") as answer:
                answer.write(json.dumps(do()))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    return os.waitpid(pid, 0)[1], json.loads(said) if said else None


def loaded(base: Path, stores: Path) -> dict[str, Any]:
    """Load it; what was reported, and the hash of everything that the model holds."""
    reported: list[str] = []
    model = load_base(find_model(str(base)), QuantizationSettings(), CPU, stores=Stores(stores, reported.append))
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return {"reported": reported, "held": digest.hexdigest()}


def met(base: Path, stores: Path, how: str, number: int, each: bool) -> dict[str, Any]:
    """Load it with a fault at one call; 'met' is empty where there were fewer calls."""
    calls: list[str] = []
    act = kill_at(number) if how == "kill" else full_from(number)

    def told(call: Any) -> None:
        if call.number == number:
            calls.append(f"{call.kind} {os.path.relpath(call.path, stores)}")
            (stores.parent / "met").write_text(calls[0])
        act(call)

    Files(stores, told, each_write=each, but=[".lock"]).begin()
    return loaded(base, stores)


def left(stores: Path) -> list[str]:
    """What there is of stores: each whole, whose files are what its manifest says, or only begun."""
    found = []
    for each in list_stores(stores):
        if each.whole:
            verify_store(stored(stores, each.key))
        found.append("whole" if each.whole else "begun")
    return sorted(found)


def main(base: Path, stores: Path, how: str, each: bool, numbers: list[int]) -> None:
    """One line a fork: the call, what was left, what the load after it said and held, and the store's hash then."""
    old = [info.key for info in list_stores(stores)]
    kept = {path.name: path.read_bytes() for path in (stores / old[0]).iterdir()} if old else {}
    for number in numbers or count():
        (stores.parent / "met").unlink(missing_ok=True)
        _, first = in_fork(lambda number=number: met(base, stores, how, number, each))  # type: ignore[misc]
        if not (stores.parent / "met").exists():
            return
        there = left(stores)
        _, then = in_fork(lambda: loaded(base, stores))
        made = [info.key for info in list_stores(stores)]
        line = {"call": (stores.parent / "met").read_text(), "first": first, "left": there, "then": then}
        line["hash"] = hashlib.sha256((stores / made[0] / WEIGHTS).read_bytes()).hexdigest()
        line["after"] = [path.name for path in stores.iterdir() if not path.name.endswith(".lock")]
        print(json.dumps(line), flush=True)
        delete_store(stores, made[0])
        for name, content in kept.items():  # what was there at first is put back
            (stores / old[0]).mkdir(exist_ok=True)
            (stores / old[0] / name).write_bytes(content)


if __name__ == "__main__":
    with mock.patch.dict(os.environ, {"NIBBLE_STORES": "always"}):
        try:
            more = sys.argv[4:]
            main(
                Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "each" in more, [int(n) for n in more if n != "each"]
            )
        except StoreError as error:
            sys.exit(f"left in pieces: {error}")
