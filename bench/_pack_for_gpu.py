"""Brings what a bare machine with a card lacks: our packages in our versions, as one file. Standard library only.

Here:   python bench/_pack_for_gpu.py pack packages.zip          (fetches wheels from the package registry; 40 MB)
There:  python3 bench/_pack_for_gpu.py unpack packages.zip DIR   (no network; the last line says how to go on)

The machine has Linux on x86-64 and a Python with torch for CUDA and what comes with it. `unpack` makes an environment
in DIR in which our packages come before those of that Python.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

# The engine's packages, and what they need of their own; gradio is not among them, for the page is not measured.
PACKED = (
    *("transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "tokenizers", "huggingface_hub"),
    *("safetensors", "nvidia-ml-py", "pydantic", "pydantic_core", "typing_inspection", "annotated-types", "gguf"),
    *("dill", "multiprocess", "xxhash", "wakepy", "ftfy", "wcwidth", "filelock", "psutil", "jinja2", "hf-xet"),
    *("httpx2", "httpcore2", "truststore", "anyio", "idna", "jeepney", "click", "regex", "typing_extensions"),
)
# What such a machine has, beside torch, and what the engine does without: all that is needed is in one of the lists.
THERE = (
    *(
        "torch",
        "numpy",
        "pyarrow",
        "pandas",
        "PyYAML",
        "packaging",
        "tqdm",
        "fsspec",
        "requests",
        "MarkupSafe",
        "typer",
    ),
    *("httpx", "certifi", "h11", "gradio", "starlette", "uvicorn"),
)
# bitsandbytes has a library for each CUDA; of CUDA 13 those that torch 2.9 to 2.13 is built with.
LIBRARIES = ("_cpu.so", "_cuda130.so", "_cuda132.so")
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17, 12, 5)


def pack(file: Path, python: str = "3.12") -> None:
    """Fetch the wheels of the versions that are installed here, and write their content to `file`."""
    with tempfile.TemporaryDirectory() as folder:
        wheels, content = Path(folder, "wheels"), Path(folder, "content")
        platforms = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["manylinux2014_x86_64", "any"]
        tags = [f"cp{python.replace('.', '')}", "abi3", "none"]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(wheels)]
        command += ["--implementation", "cp", "--python-version", python]
        command += [word for tag in tags for word in ("--abi", tag)]
        command += [word for name in platforms for word in ("--platform", name)]
        subprocess.run([*command, *(f"{name}=={metadata.version(name)}" for name in PACKED)], check=True)
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(content)
        for library in content.glob("bitsandbytes/libbitsandbytes_*"):
            if not library.name.endswith(LIBRARIES):
                library.unlink()
        shutil.make_archive(str(file.with_suffix("")), "zip", content)
    print(f"{file.with_suffix('.zip')}: {file.with_suffix('.zip').stat().st_size / 1e6:.0f} MB")


def unpack(file: Path, folder: Path) -> None:
    """Make an environment in `folder` with the packages of `file` before those of this Python."""
    # Without pip: not every machine has what venv needs for it.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = Path(_said(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    zipfile.ZipFile(file).extractall(site)
    # A .pth file appends, so what was packed comes first.
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "of-this-machine.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    print(f"Now: {python} launch.py --skip-install bench gpu")


def _said(python: Path, script: str) -> str:
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    verb, file, *more = sys.argv[1:]
    if verb == "pack":
        pack(Path(file), *more)
    else:
        unpack(Path(file), Path(more[0]))
