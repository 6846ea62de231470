"""Whether paged optimizers work on this card: their states lie in CUDA's managed memory, which some systems refuse.

    python -m core.system.managed_memory   (takes one step of a paged optimizer; run as a process of its own)

Where it is refused, bitsandbytes ends the process: `cget_managed_ptr` calls exit(1) (0.50.2, csrc/compat.cuh,
BNB_CHECK_RETURN). Reported from vGPUs (rapidsai/rmm#656) and gVisor (google/gvisor#9593).
"""

import signal
import subprocess

from core.system.hardware import Device, claim_card
from core.system.measured_card import keep, measured
from core.system.process import as_process
from core.text.library_errors import ended_by_bitsandbytes

# bitsandbytes pages no smaller states (0.50.2, `get_state_buffer`).
SMALLEST_PAGED = 100_000
REACHED, WORKS, WRONG = "reached", "works", "wrong"
PATIENCE_SECONDS = 120


def pages_states(card: Device) -> bool:
    """Whether a paged optimizer's states are in managed memory on this device; True on a card that was not tried."""
    return card.kind == "cuda" and bool(measured(card).get("managed_memory", True))


def try_managed_memory(card: Device) -> bool | None:
    """Try it on `card` and remember the answer; None where the attempt did not come so far."""
    try:
        done = subprocess.run(
            **as_process("core.system.managed_memory"),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    answer = done.stdout.split()[-1:]
    if answer in ([WORKS], [WRONG]):
        works = answer == [WORKS]
    elif answer == [REACHED] and "out of memory" not in done.stderr and _died_of_it(done):
        works = False
    else:  # whatever ended it, a full card or a missing library, is no answer
        return None
    keep(card, managed_memory=works)
    return works


def _died_of_it(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether bitsandbytes ended the process, or a crash in the driver did; the system kills where RAM runs out."""
    crashed = done.returncode < 0 and done.returncode != -signal.SIGKILL
    return crashed or ended_by_bitsandbytes(done.stderr) is not None


def try_once(card: Device) -> None:
    """Before a run: try it where nobody has on this card with this driver and torch."""
    if card.kind == "cuda" and "managed_memory" not in measured(card):
        try_managed_memory(card)


def step_paged(device: str) -> bool:
    """Take a step of a paged optimizer. Returns whether it did what AdamW's first step does."""
    import torch
    from bitsandbytes.optim import PagedAdamW32bit

    weight = torch.nn.Parameter(torch.zeros(SMALLEST_PAGED, device=device))
    weight.grad = torch.ones_like(weight)
    PagedAdamW32bit([weight], lr=0.5).step()
    return bool((weight + 0.5).abs().max() < 0.01)


def main() -> None:
    """Say how far it came, a word a line. Where managed memory is refused, bitsandbytes ends it after the first."""
    claim_card()
    import bitsandbytes  # noqa: F401
    import torch

    torch.zeros(1, device="cuda")  # what fails up to here is no matter of managed memory
    print(REACHED, flush=True)
    print(WORKS if step_paged("cuda") else WRONG)


if __name__ == "__main__":
    main()
