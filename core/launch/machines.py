"""Several machines that train one adapter: writes accelerate's configuration and gives each machine's command.

Each has Nibble, the base model and the run's folder under the same paths, as on a shared disk. Imports no torch.
"""

import os
import shlex
import subprocess
from pathlib import Path

import yaml

from core.errors import RecipeError
from core.launch.submit import prepare
from core.recipe import Recipe
from core.runs.store import Run
from core.workspace import Workspace

PORT = 29500
HOW = "In Nibble's folder, run one line on each machine, all within 15 minutes:"
WAITS = "Waiting to be started manually on each machine; see machines.txt in the run's folder."


def set_up(
    recipe: Recipe, workspace: Workspace, machines: int, address: str, port: int = PORT
) -> tuple[Run, list[str]]:
    """A run that waits for its `machines`, and the command for each; at `address` the first one is found.

    On each machine as many processes train as `train.devices` says. Raises NibbleError as starting a run does.
    """
    together = machines * recipe.train.devices
    if together > recipe.train.effective_batch:
        raise RecipeError(
            f"{machines} machines with {recipe.train.devices} devices each are {together}, more than "
            f"train.effective_batch {recipe.train.effective_batch}; each device needs at least one conversation per "
            f"step."
        )
    if recipe.train.sharded and recipe.train.effective_batch % together:
        raise RecipeError(
            f"train.sharded needs equal shares, but {together} processes do not divide "
            f"train.effective_batch {recipe.train.effective_batch}."
        )
    run = prepare(recipe, workspace, state="stopped", machines=machines)
    run.write_status(message=WAITS)
    config = run.dir / "accelerate.yaml"
    config.write_text(yaml.safe_dump(_config(machines, together, address, port), sort_keys=False), encoding="utf-8")
    commands = [_command(config, number, run) for number in range(machines)]
    text = "\n".join([HOW, "", *commands, ""])
    (run.dir / "machines.txt").write_text(text, encoding="utf-8")
    return run, commands


def _config(machines: int, processes: int, address: str, port: int) -> dict[str, object]:
    """As `accelerate config` writes it. Processes without a GPU are launched in just the same way."""
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "num_machines": machines,
        "num_processes": processes,
        "machine_rank": 0,
        "main_process_ip": address,
        "main_process_port": port,
        "same_network": True,
        "rdzv_backend": "static",
        "mixed_precision": "no",
        "use_cpu": False,
        "gpu_ids": "all",
    }


def _command(config: Path, number: int, run: Run) -> str:
    accelerate = Path(".venv") / ("Scripts" if os.name == "nt" else "bin") / "accelerate"
    words = [str(accelerate), "launch", "--config_file", str(config), "--machine_rank", str(number)]
    words += ["-m", "core.train.rank_process", str(run.dir)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
