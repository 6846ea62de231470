"""The optimizers, a row each: read by the plan, the trace, the trainer and the form. Imports no torch.

To add one, write its row, and its name in `core.settings.Optimizer`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from core.errors import RecipeError

# transformers' name for torch's own AdamW, in one fused kernel.
TORCH_ADAMW = "adamw_torch_fused"


@dataclass(frozen=True)
class Optimizer:
    """An optimizer by its name in recipes, with its `label` on the screen.

    For each trained number it keeps `moments` numbers of `bits`. A paged one keeps them in managed memory, which leaves
    the GPU when that is full. `cpu` and `mps` (Apple's GPU) are transformers' names for what stands in for it there,
    where there is no memory to page out of; None: nothing does. `cuda` is its name there where it is not its own.
    """

    name: str
    label: str
    bits: int
    moments: int
    beta2: float
    cpu: str
    mps: str | None
    cuda: str | None = None
    paged: bool = True
    # The same one with smaller states, for a person to allow where this one was fixed.
    smaller: str | None = None
    # Whether 'auto' may choose it. It prefers the first of these in the table.
    automatic: bool = False

    @property
    def state_bytes(self) -> int:
        """What it keeps for each trained number, in bytes."""
        return self.moments * self.bits // 8

    @property
    def unpaged(self) -> Optimizer:
        """The same for a GPU without managed memory: what runs there is what stands in for it on a CPU."""
        return replace(self, paged=False, cuda=self.cpu) if self.paged else self

    def pages_on(self, device: str) -> bool:
        """Whether its states are in managed memory on a device of that kind."""
        return self.paged and device == "cuda"

    def name_on(self, device: str) -> str:
        """transformers' name for what runs on a device of that kind. Raises RecipeError where nothing does."""
        name = {"cuda": self.cuda or self.name, "cpu": self.cpu, "mps": self.mps}[device]
        if name is None:
            raise RecipeError(f"train.optimizer: {self.label} does not run on Apple's GPU. Choose adamw, or auto.")
        return name


_adamw = partial(Optimizer, moments=2, beta2=0.999, mps=TORCH_ADAMW)  # Loshchilov and Hutter, arXiv 1711.05101
_lion = partial(Optimizer, moments=1, beta2=0.99, mps=None)  # Chen et al., arXiv 2302.06675
_EIGHT, _LION_EIGHT = "paged_adamw_8bit", "paged_lion_8bit"
_ROWS = (
    _adamw("paged_adamw_32bit", "Paged AdamW, 32 bits", 32, cpu=TORCH_ADAMW, smaller=_EIGHT, automatic=True),
    # bitsandbytes has no 8-bit optimizer for Apple's GPU.
    _adamw(_EIGHT, "Paged AdamW, 8 bits", 8, cpu="adamw_8bit", automatic=True),
    _lion("paged_lion_32bit", "Paged Lion, 32 bits", 32, cpu="lion_32bit", smaller=_LION_EIGHT),
    _lion(_LION_EIGHT, "Paged Lion, 8 bits", 8, cpu="lion_8bit"),
    _adamw("adamw", "Plain AdamW", 32, paged=False, cuda=TORCH_ADAMW, cpu=TORCH_ADAMW, smaller=_EIGHT),
)
OPTIMIZERS = {row.name: row for row in _ROWS}


def candidates(setting: str, pages: bool = True) -> list[Optimizer]:
    """What `train.optimizer` leaves to choose from: the one that it names, or those for 'auto', the preferred first.

    `pages`: whether the device has managed memory; without it none of them is paged.
    """
    rows = [row for row in _ROWS if row.automatic] if setting == "auto" else [OPTIMIZERS[setting]]
    return rows if pages else [row.unpaged for row in rows]


def optimizer_for(setting: str, pages: bool = True) -> Optimizer:
    """What `train.optimizer` means until a plan has chosen: for 'auto' the one that it prefers."""
    return candidates(setting, pages)[0]
