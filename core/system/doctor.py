"""What this machine has, and its problems, each with what to do about it.

python -m core.system.doctor      (prints JSON; `doctor()` runs it as a process, since it imports torch)
"""

import json
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

from core.setup.wheels import UNTRIED, find_others, named
from core.system.compute_dtype import compute_dtype
from core.system.hardware import NAME_ONE, claim_card, device, hidden_cards, torch_built_for, unused_card
from core.system.managed_memory import try_managed_memory
from core.system.process import as_process
from core.text.library_errors import ended_by_bitsandbytes, telling_line, telling_line_of
from core.workspace import Workspace

PACKAGES = ("gradio", "torch", "transformers", "bitsandbytes", "peft", "trl", "datasets", "accelerate")
LITTLE_DISK_BYTES = 5 * 10**9
OTHER_BUILDS = {"hip": "AMD's ROCm", "xpu": "Intel's XPU"}
NO_MANAGED_MEMORY = (
    "This card's system has no managed memory, as some virtual GPUs and containers have none: optimizers are not paged."
)


def doctor(workspace: Workspace) -> dict[str, Any]:
    """The machine, torch, the dtype and its reason, bitsandbytes, the disk, and the problems with their fixes.

    `notes` are sentences on what is no problem and yet unlike what a person may expect.
    """
    engine, errors = _answer_of("core.system.doctor")
    if engine:
        problems = engine.pop("problems")
    else:
        engine = {"torch": None, "bitsandbytes": None}
        problems = [_problem(_why_no_engine(errors), "python launch.py --reinstall")]
    constants, notes = _measure_card(), _other_cards()
    if constants.get("managed_memory") is False:
        notes.append(NO_MANAGED_MEMORY)
    found = {**_machine(workspace), **engine, "constants": constants, "notes": notes}
    free = found["disk"]["free_bytes"]
    if free < LITTLE_DISK_BYTES:
        what = f"Only {free / 1e9:.1f} GB of disk space are free."
        problems.append(_problem(what, "Delete old runs on the Runs tab, or free some space."))
    return {**found, "problems": problems}


def _why_no_engine(errors: str) -> str:
    ended = ended_by_bitsandbytes(errors)
    if ended is not None:
        return f"bitsandbytes cannot use this card: {ended}."
    return f"The engine cannot be imported: {telling_line_of(errors, 'no output')}"


def _measure_card() -> dict[str, Any]:
    """What the card takes beside tensors, its speed, and whether it pages: measured now, kept for plans; else empty."""
    card = device()
    if card.kind != "cuda":
        return {}
    return {**_answer_of("core.memory.measured_overhead")[0], "managed_memory": try_managed_memory(card)}


def _other_cards() -> list[str]:
    """Why a card of another maker, or a torch that was installed for one, is not used."""
    built = OTHER_BUILDS.get(torch_built_for())
    if built:
        return [f"The installed torch is built for {built}. {UNTRIED}: runs use the CPU."]
    others = find_others() if device().kind == "cpu" else []
    return [f"{named(others)} is not used. {UNTRIED}."] if others else []


def _answer_of(module: str) -> tuple[dict[str, Any], str]:
    """The JSON that our `module` prints last, run as a process: empty where it fails; and what it says of errors."""
    done = subprocess.run(**as_process(module), capture_output=True, encoding="utf-8", errors="replace")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines and not done.returncode else {}, done.stderr


def _machine(workspace: Workspace) -> dict[str, Any]:
    chosen = device()
    dtype, because = compute_dtype(chosen)
    disk = shutil.disk_usage(workspace.state)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": chosen.as_json(),
        "compute_dtype": dtype,
        "because": because,
        "disk": {"free_bytes": disk.free, "total_bytes": disk.total},
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def _problem(what: str, mend: str) -> dict[str, str]:
    return {"what": what, "mend": mend}


def examine_engine() -> dict[str, Any]:
    """Import torch and bitsandbytes and quantise a matrix. Returns their state and the problems."""
    import torch

    problems = []
    chosen = device()
    if chosen.kind == "cuda" and not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}, which this driver or card does not support"
        what = f"{chosen.name} is present, but torch cannot use it: {built}."
        problems.append(_problem(what, "python launch.py --reinstall"))
    idle = unused_card()
    if idle is not None:
        what = f"{idle} is present, but this torch build supports only the CPU, so the card is not used."
        problems.append(_problem(what, "Update the NVIDIA driver, then python launch.py --reinstall"))
    hidden = hidden_cards()
    if hidden is not None:
        problems.append(_problem(hidden, NAME_ONE))
    if chosen.kind == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(0)
        if not _has_kernels(torch.cuda.get_arch_list(), major, minor):
            what = f"This torch has no kernels for compute capability {major}.{minor}."
            problems.append(_problem(what, "python launch.py --reinstall"))
    quantises, error = _quantises(torch)
    if error:
        problems.append(_problem(f"bitsandbytes cannot quantise here: {error}", "python launch.py --reinstall"))
    return {
        "torch": {"version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()},
        "bitsandbytes": {"version": metadata.version("bitsandbytes"), "nf4_works": quantises},
        "problems": problems,
    }


def _has_kernels(architectures: list[str], major: int, minor: int) -> bool:
    """Whether one of torch's `sm_XY` runs on the card: kernels run on every later minor version of their major one."""
    built = [name.removeprefix("sm_") for name in architectures if name.startswith("sm_")]
    versions = [(int(name[:-1]), int(name[-1])) for name in built if name.isdigit()]
    return any(version[0] == major and version[1] <= minor for version in versions)


def _quantises(torch: Any) -> tuple[bool, str]:
    """Whether a matrix survives NF4 with double quantisation on this device."""
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        target = "cuda" if torch.cuda.is_available() else "cpu"
        weights = torch.linspace(-1, 1, 64 * 256).reshape(64, 256).to(target)
        packed, state = quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
        error = (dequantize_4bit(packed, state) - weights).abs().max().item()
    except (RuntimeError, OSError, ImportError, AttributeError) as problem:
        return False, telling_line(problem)
    return error < 0.2, "" if error < 0.2 else f"values come back {error:.2f} off"


if __name__ == "__main__":
    claim_card()
    print(json.dumps(examine_engine()))
