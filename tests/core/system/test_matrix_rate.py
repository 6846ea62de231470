"""A rate is the operations of a product over the seconds that it took, and what is slow is measured on little."""

from __future__ import annotations

import numpy
import pytest
import torch

from core.system import matrix_rate
from core.system.matrix_rate import matrix_rates


@pytest.mark.parametrize(("flops", "largest"), [(1e12, 4096), (2e9, 1024), (1e9, 256)])
def test_the_rate_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch, flops: float, largest: int) -> None:
    """A clock that goes on only with products: numpy's count of operations over the device's speed."""
    now, sizes = [0.0], []

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        path = numpy.einsum_path("ij,jk->ik", numpy.empty(left.shape), numpy.empty(right.shape))[1]
        counted = float(path.split("Naive FLOP count:")[1].split()[0])
        now[0] += counted / flops
        sizes.append(left.shape[0])
        return left

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    monkeypatch.setattr(torch, "randn", lambda *size, device: torch.empty(size, device="meta"))
    monkeypatch.setattr(matrix_rate.time, "perf_counter", lambda: now[0])
    assert matrix_rates("cpu", ["float32"])["float32"] == pytest.approx(flops, rel=1e-3)
    assert max(sizes) == largest


def test_each_dtype_has_its_own_rate() -> None:
    found = matrix_rates("cpu", ("float32", "bfloat16"))
    assert set(found) == {"float32", "bfloat16"} and min(found.values()) > 0
