"""The environment of the processes that compute: where the GPU allocator may grow its memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.system import hardware, process
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


@pytest.mark.parametrize(
    ("system", "release", "vgpu", "theirs", "grow"),
    [
        ("linux", "6.8.0-generic", False, None, True),
        ("linux", "6.8.0-generic", True, None, False),
        ("linux", "5.15-microsoft-WSL2", False, None, False),
        ("win32", "11", False, None, False),
        ("win32", "11", False, "expandable_segments:True", False),
        ("linux", "6.8.0-generic", False, "max_split_size_mb:512", False),
        ("linux", "5.15-microsoft-WSL2", False, "backend:native, expandable_segments:True", True),
    ],
)
def test_a_plan_knows_whether_segments_grow(
    monkeypatch: pytest.MonkeyPatch, system: str, release: str, vgpu: bool, theirs: str | None, grow: bool
) -> None:
    """Where they do not, freed blocks fit fewer tensors, and the plan leaves more room for that."""
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    if theirs is not None:
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", theirs)
    monkeypatch.setattr(process.sys, "platform", system)
    monkeypatch.setattr(process.platform, "release", lambda: release)
    monkeypatch.setattr(process, "on_vgpu", lambda: vgpu)
    assert process.segments_grow() is grow
    if theirs is None:
        assert ("PYTORCH_CUDA_ALLOC_CONF" in child_environment()) is grow


@pytest.mark.parametrize(("mode", "shared"), [(2, True), (1, False), (0, False)])
def test_a_virtual_gpu_is_known_by_what_the_driver_says(
    monkeypatch: pytest.MonkeyPatch, mode: int, shared: bool
) -> None:
    """The numbers are NVML's: vGPU, passed through, none."""
    nvml = SimpleNamespace(
        NVMLError=Exception,
        NVML_GPU_VIRTUALIZATION_MODE_VGPU=2,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetVirtualizationMode=lambda card: mode,
    )
    monkeypatch.setattr(hardware, "nvml_module", lambda: nvml)
    assert hardware.on_vgpu.__wrapped__() is shared
