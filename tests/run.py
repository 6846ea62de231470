"""The body of `python launch.py test`: lint, format, types, then the tests, in a real Chromium where they need one.

Every part runs, whatever the ones before it said; tests/gpu in a session of its own, on a GPU that is not there
(tests/gpu_standin). The last line is pytest's own summary. `--full` adds the tests that take long. What is not here:
anything that installs Python packages, which is launch.py's.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]

# What every test runs under: no network, no analytics, no fork warnings, and fp32 on a CPU that could compute in bf16:
# expected values are the same on every machine. tests/conftest.py sets the same.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GOMP_SPINCOUNT": "20000",
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
}

# What a process that runs tests may take, with those that it starts.
WORKER_BYTES = 4 * 2**30

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
CHROMIUM_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def main(full: bool = False, only: list[str] | None = None) -> int:
    """Run everything, or with `only` just pytest with those arguments. Returns the exit status."""
    times: list[tuple[str, float, bool]] = []
    if not only:
        for name, command in (
            ("lint", ["ruff", "check", "."]),
            ("format", ["ruff", "format", "--check", "."]),
            ("types", ["mypy"]),
        ):
            print(f"== {name}", flush=True)
            began = time.monotonic()
            passed = subprocess.call([sys.executable, "-m", *command], cwd=ROOT) == 0
            times.append((name, time.monotonic() - began, passed))
    print("== tests", flush=True)
    began = time.monotonic()
    problem = ensure_chromium()
    if problem:
        print(f"{problem} The browser tests will fail.", flush=True)
    side_by_side = [] if only else ["-n", str(workers()), "--dist", "loadfile"]
    options = ["-m", "" if full else "not full", "--durations=10", *side_by_side]
    paths = [each for each in only or [] if each and (ROOT / each.partition("::")[0]).exists()]
    options += [each for each in only or [] if each not in paths]
    on_gpu = [path for path in paths if Path(path).parts[:2] == ("tests", "gpu")]
    last_line = ""
    if len(on_gpu) < len(paths) or not paths:
        last_line, passed = run_pytest([*options, *(path for path in paths if path not in on_gpu)])
        times.append(("tests", time.monotonic() - began, passed and not problem))
    if on_gpu or not paths:
        began = time.monotonic()
        of_gpu, passed = run_gpu_tests([*options, *(on_gpu or ["tests/gpu"])])
        print(last_line, end="", flush=True)
        last_line = of_gpu
        times.append(("on a GPU", time.monotonic() - began, passed))
    print()
    for name, seconds, good in times:
        print(f"{name:8} {seconds:7.1f} s  {'passed' if good else 'FAILED'}")
    print(last_line, end="", flush=True)
    return 0 if all(good for _, _, good in times) else 1


def run_gpu_tests(arguments: list[str]) -> tuple[str, bool]:
    """Run tests/gpu on the stand-in. Where it cannot be compiled that is said, and counts as passed."""
    from tests.gpu_standin.build import environment, missing_compiler
    from tests.gpu_standin.machine import Machine

    print("== tests on a stand-in GPU", flush=True)
    missing = missing_compiler()
    if missing:
        return f"tests/gpu did not run: {missing}\n", True
    with tempfile.TemporaryDirectory(prefix="nibble-gpu-") as folder:
        return run_pytest(arguments, environment(Path(folder) / "machine", Machine()))


def workers() -> int:
    """How many processes share the tests, a file at a time: one a core, and no more than memory has room for."""
    return max(1, min(psutil.cpu_count() or 1, 4, psutil.virtual_memory().available // WORKER_BYTES))


def run_pytest(arguments: list[str], more: dict[str, str] | None = None) -> tuple[str, bool]:
    """Show pytest's output as it comes, but keep its last line back, for it to be the last.

    `more` is added to the environment.
    """
    with tempfile.TemporaryDirectory(prefix="nibble-test-") as data_dir:
        own = {"NIBBLE_DATA_DIR": data_dir, "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **ENVIRONMENT, **own, **(more or {})}
        colour = "yes" if sys.stdout.isatty() else "auto"
        command = [sys.executable, "-m", "pytest", f"--color={colour}", *arguments]
        held = ""
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                print(held, end="", flush=True)
                held = line
        return held, running.returncode == 0


def find_chromium() -> str:
    """The system's Chromium, Chrome or Edge; NIBBLE_CHROMIUM names another. Empty if there is none."""
    given = os.environ.get("NIBBLE_CHROMIUM")
    if given:
        return given
    found = (shutil.which(name) for name in CHROMIUM_NAMES)
    return next((path for path in (*found, *CHROMIUM_PLACES) if path and Path(path).exists()), "")


def ensure_chromium() -> str:
    """Install Chromium where it is missing and that is allowed (Debian, Ubuntu); says what is wrong, if anything."""
    if find_chromium():
        return ""
    apt = shutil.which("apt-get")
    if not apt:
        return "There is no Chromium, Chrome or Edge here: install one, or name it in NIBBLE_CHROMIUM."
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and not (shutil.which("sudo") and subprocess.call([*sudo, "true"], stderr=subprocess.DEVNULL) == 0):
        return "There is no Chromium here, and no right to install it: `sudo apt-get install chromium`."
    print("installing Chromium for the browser tests", flush=True)
    for step in (["update"], ["install", "-y", "chromium"]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run([*sudo, apt, "-q", *step], env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout + done.stderr, flush=True)
            return f"There is no Chromium here, and `apt-get {' '.join(step)}` failed."
    return "" if find_chromium() else "apt-get installed chromium, and still there is none in PATH."
