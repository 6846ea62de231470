"""How fast a device multiplies matrices in a dtype: what the compute dtype is chosen by, and a plan's time follows."""

import time
from collections.abc import Iterable

# A small one first: a dtype that the device emulates may be a hundred times slower than another.
SIZES = (256, 1024, 4096)
# A product that takes this long is no longer a matter of launching it.
LONG_ENOUGH_SECONDS = 0.02
TRIES = 3


def matrix_rates(device: str, dtypes: Iterable[str]) -> dict[str, float]:
    """Operations a second of torch's product of two square matrices on `device`, by the name of the dtype."""
    return {dtype: _rate(device, dtype) for dtype in dtypes}


def _rate(device: str, dtype: str) -> float:
    rate = 0.0
    for size in SIZES:
        seconds = _seconds(device, dtype, size)
        rate = 2 * size**3 / seconds
        if seconds > LONG_ENOUGH_SECONDS:
            break
    return rate


def _seconds(device: str, dtype: str, size: int) -> float:
    """The shortest of a few tries, after one that loads the kernel."""
    import torch

    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))

    def once() -> float:
        began = time.perf_counter()
        left @ right
        if left.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(TRIES))
