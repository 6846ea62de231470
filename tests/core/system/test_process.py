"""The environment of the processes that compute: where the GPU allocator may grow its memory."""

from __future__ import annotations

import pytest

from core.system import process
from core.system.process import child_environment


@pytest.mark.parametrize(
    ("release", "theirs", "grows"),
    [("6.8.0-generic", {}, True), ("6.8.0", {"PYTORCH_ALLOC_CONF": "x"}, False), ("5.15-microsoft-WSL2", {}, False)],
)
def test_the_gpu_allocators_memory_grows_where_it_can_and_nobody_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, release: str, theirs: dict[str, str], grows: bool
) -> None:
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process.sys, "platform", "linux")
    monkeypatch.setattr(process.platform, "release", lambda: release)
    assert ("PYTORCH_CUDA_ALLOC_CONF" in child_environment()) == grows
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")
    assert child_environment()["PYTORCH_CUDA_ALLOC_CONF"] == "backend:native"
