"""Loading a model: from its store on the disk, against its own 16-bit files, and against reading the store's bytes.

The model is random, large enough that reading counts, and small enough for a machine that does other things meanwhile.
Every turn is a process of its own, which opens the store and reads its bytes, one or the other first; the 16-bit files
are loaded once, because a CPU takes many times as long for it. All files are in the page cache. The memory is what a
process held at most, above what it held before, as Linux counts it.
"""

from __future__ import annotations

import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core.basemodel.find import find_model
from core.basemodel.stores import ENVIRONMENT, WEIGHTS, list_stores
from core.model.load import load_base
from core.model.stored import Stores
from core.recipe import QuantizationSettings
from core.system.hardware import device
from core.system.process import child_environment
from core.text.library_errors import telling_line_of
from core.workspace import ROOT

TURNS = 3
# 530 million parameters, and a vocabulary that hardly counts: 0.3 GB in 4 bits, 1.1 GB in 16.
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632,
    "num_hidden_layers": 10, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 4096,
    "max_position_embeddings": 2048,
}  # fmt: skip
# What is imported and set up once shall not count: each process loads this one first.
SMALL = {**CONFIG, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 64}
FASTER_BAR, READING_BAR, MEMORY_BAR = 3.0, 1.3, 1.1


def main(seed: int = 0, turns: int = TURNS, config: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them. The weights are always the same: `seed` is not used."""
    with tempfile.TemporaryDirectory() as folder:
        base, stores = Path(folder) / "base", Path(folder) / "quantised"
        stores.mkdir()
        stores.with_name("other").mkdir()
        write_base(base, config or CONFIG)
        write_base(base.with_name("small"), SMALL)
        making = _turn(base, stores, ["store"])["store"]  # the first load of all makes the store
        [store] = list_stores(stores)
        size = (stores / store.key / WEIGHTS).stat().st_size
        files = _turn(base, stores, ["files"])["files"]
        orders = [["store", "bytes"], ["bytes", "store"]]
        measured = [_turn(base, stores, orders[turn % 2]) for turn in range(turns)]
    return rows_of(measured, files["seconds"], making["seconds"], size)


def write_base(folder: Path, config: dict[str, Any]) -> None:
    """A model folder of random 16-bit weights, without a tokenizer: a shard for each layer."""
    import torch
    from safetensors.torch import save_file

    from bench._random_model import random_weights

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    shards: dict[str, dict[str, Any]] = {}
    for name, weight in random_weights(config, torch.bfloat16).items():
        layer = re.search(r"layers\.(\d+)\.", name)
        shards.setdefault(layer[1] if layer else "ends", {})[name] = weight
    places: dict[str, str] = {}
    for shard, weights in shards.items():
        file = f"model-{shard}.safetensors"
        save_file(
            {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()},
            folder / file,
            {"format": "pt"},
        )
        places |= dict.fromkeys(weights, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _turn(base: Path, stores: Path, ways: list[str]) -> dict[str, dict[str, float]]:
    """A process that loads the base in these ways, one after the other: seconds, and bytes held at most, of each."""
    command = [sys.executable, "-m", "bench.load_model", str(base), str(stores), *ways]
    environment = {**child_environment(), "HF_HUB_OFFLINE": "1", ENVIRONMENT: "always"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(ways)}: {telling_line_of(done.stderr, 'it ended')}")
    measured: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return measured


def work(base: Path, stores: Path, ways: list[str]) -> None:
    """The process itself: print what each way took."""
    found, settings, here = find_model(str(base)), QuantizationSettings(), device()
    do: dict[str, Callable[[], Any]] = {
        "store": lambda: load_base(found, settings, here, stores=Stores(stores)),
        "files": lambda: load_base(found, settings, here),
        "bytes": lambda: _read(next(stores.glob(f"[!.]*/{WEIGHTS}"))),
    }
    for _ in range(2):
        load_base(find_model(str(base.with_name("small"))), settings, here, stores=Stores(stores.with_name("other")))
    print(json.dumps({way: _measured(do[way]) for way in ways}))


def _measured(do: Callable[[], Any]) -> dict[str, float]:
    gc.collect()
    before, began = _held(reset=True), time.monotonic()
    kept = do()
    seconds = time.monotonic() - began
    peak = _held() - before
    del kept
    return {"seconds": seconds, "bytes": peak}


def _read(file: Path) -> Any:
    """All bytes of a file in memory of their own: as fast as it goes."""
    data: Any = np.empty(file.stat().st_size, np.uint8)
    with file.open("rb", buffering=0) as handle:
        view = memoryview(data)
        while view:
            view = view[handle.readinto(view) :]
    return data


def _held(reset: bool = False) -> int:
    """The most memory that this process has held since the last reset, in bytes; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def rows_of(
    measured: list[dict[str, dict[str, float]]], files: float, making: float, size: int
) -> list[dict[str, Any]]:
    """The medians of the turns, and of their ratios, as rows of figures."""
    store, read = (statistics.median(turn[way]["seconds"] for turn in measured) for way in ("store", "bytes"))
    faster = files / store
    slower = statistics.median(turn["store"]["seconds"] / turn["bytes"]["seconds"] for turn in measured)
    held = statistics.median(turn["store"]["bytes"] for turn in measured)
    memory = None if not held else held / size
    return [
        _row("the base's own 16-bit files", files, "s", None),
        _row("the same, and the store is made and opened", making, "s", files),
        _row("from the store", store, "s", files),
        _row("so many times faster", faster, "times", 1.0, FASTER_BAR, faster >= FASTER_BAR),
        _row("reading the store's bytes", read, "s", None),
        _row("from the store, against reading its bytes", slower, "times", 1.0, READING_BAR, slower <= READING_BAR),
        _row("memory at most, against the store's size", memory or 0.0, "times", 1.0, MEMORY_BAR,
             None if memory is None else memory <= MEMORY_BAR),
        _row("the store", size / 1e9, "GB", None),
    ]  # fmt: skip


def _row(
    name: str, value: float, unit: str, reference: float | None, bar: float | None = None, holds: bool | None = None
) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "reference": reference, "bar": bar, "holds": holds}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    work(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
