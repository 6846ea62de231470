"""Compiles the stand-in, once a machine, and gives the environment in which Python processes see its cards."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from tests.gpu_standin.machine import VARIABLE, Machine, describe

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
BUILT = "GPU_STANDIN_BUILT"  # names the folder with the libraries


def missing_compiler() -> str | None:
    """Why the stand-in cannot be compiled here; None where it can."""
    if sys.platform != "linux":
        return "the stand-in GPU is compiled on Linux only"
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler here ({COMPILER}), which the stand-in GPU needs"
    spec = importlib.util.find_spec("torch")
    if "+cpu" not in metadata.version("torch") and (spec is None or _has_cuda(Path(spec.origin or ""))):
        return "torch is built for CUDA here; the stand-in GPU needs a CPU build"
    return None


def _has_cuda(torch_init: Path) -> bool:
    return (torch_init.parent / "lib" / "libtorch_cuda.so").exists()


def built() -> Path:
    """The folder with the compiled libraries and nvidia-smi; compiled (15 s) if need be.

    Raises RuntimeError with the compiler's words.
    """
    sources = sorted(path for path in HERE.iterdir() if path.suffix in (".h", ".cpp", ".c"))
    identity = hashlib.sha256(metadata.version("torch").encode())
    for path in sources:
        identity.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"gpu-standin-{os.getuid()}-{identity.hexdigest()[:16]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=tempfile.gettempdir(), prefix="gpu-standin-") as made:
            _compile(Path(made))
            try:
                Path(made).rename(folder)
            except OSError:  # another process was faster
                if not folder.exists():
                    raise
            else:
                Path(made).mkdir()  # for the context manager to remove
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user")
    return folder


def _compile(folder: Path) -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    torch = Path(spec.origin or "").parent
    (folder / "lib").mkdir()
    flags = ["-O1", "-fPIC", "-shared", "-Wall", "-Wno-sign-compare"]
    commands = (
        [COMPILER, "-std=c++20", *flags, f"-isystem{torch / 'include'}", str(HERE / "standin.cpp")]
        + ["-o", str(folder / "libstandin.so"), f"-L{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
        + [f"-Wl,-rpath,{torch / 'lib'}"],
        [COMPILER, "-x", "c", *flags, str(HERE / "nvml.c"), "-o", str(folder / "lib" / "libnvidia-ml.so.1")],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the stand-in GPU was not compiled:\n{done.stderr[-4000:]}")


def environment(machine_file: Path, machine: Machine) -> dict[str, str]:
    """The variables under which Python sees the cards of `machine`, which is written to `machine_file`."""
    folder = built()
    describe(machine_file, machine)

    def before(name: str, path: Path) -> str:
        return os.pathsep.join(each for each in (str(path), *os.environ.get(name, "").split(os.pathsep)) if each)

    return {
        VARIABLE: str(machine_file),
        BUILT: str(folder),
        "PYTHONPATH": before("PYTHONPATH", HERE / "site"),
        "LD_LIBRARY_PATH": before("LD_LIBRARY_PATH", folder / "lib"),
        "PATH": before("PATH", HERE / "bin"),
        "TORCHDYNAMO_DISABLE": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # operators.h takes the place of kernels that are there
    }
