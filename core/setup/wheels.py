"""Which graphics cards are here, and which build of torch serves them.

Standard library only: launch.py asks before anything is installed. What is said here about builds, drivers
and chips was read in the places named beside it; docs/install.md keeps the list of what has been run.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

INDEX = "https://download.pytorch.org/whl"


class Gpu(NamedTuple):
    vendor: str  # nvidia, amd, intel
    name: str  # for AMD the chip, such as gfx1100
    capability: tuple[int, int] = (0, 0)  # NVIDIA's compute capability
    number: int = 0  # as nvidia-smi numbers it
    free_mib: int = 0


class Build(NamedTuple):
    """One of PyTorch's CUDA builds: the oldest driver that runs it, and the cards it has kernels for."""

    name: str
    driver: int
    lowest: tuple[int, int]
    highest: tuple[int, int]

    def covers(self, gpu: Gpu) -> bool:
        return self.lowest <= gpu.capability <= self.highest


# In order of preference. Cards: PyTorch's release matrices for 2.9 to 2.13, cut to the kernels found in the
# bitsandbytes 0.50.2 wheel (12.6 begins at 6.0, 13.0 at 7.5). Drivers: NVIDIA's table of minor-version
# compatibility. cu128 ends with torch 2.11, so it is left to Blackwell cards under a driver older than 580.
# PyPI's Linux torch 2.11 to 2.13 is the cu130 build, by what its metadata requires.
CUDA_BUILDS = (
    Build("cu130", 580, (7, 5), (12, 9)),
    Build("cu126", 525, (6, 0), (9, 9)),
    Build("cu128", 525, (7, 5), (12, 9)),
)
OLDEST_CARD = min(build.lowest for build in CUDA_BUILDS)

# Why no AMD or Intel card is used. bitsandbytes 0.50.2 has 4-bit kernels for both (its installation guide, "AMD ROCm"
# and "Intel XPU"), but a card's memory and limits are read through NVIDIA's NVML here, and no run could be tried.
UNTRIED = "Nibble uses NVIDIA cards only, because nobody could try it on one of AMD's or Intel's"

# The first digits of the PCI ids of Intel's Arc A, Arc B and Data Center Max cards. Graphics inside a
# processor are left out: nobody expects a model to be trained there.
INTEL_CARDS = ("0x56", "0xe2", "0x0bd")


class Wheel(NamedTuple):
    """Where torch comes from: the decision as launch.py carries it out and remembers it."""

    folder: str = ""  # of PyTorch's index, empty for PyPI; where this changes, .venv is made anew
    because: str = ""  # why, as the end of a sentence
    cuda: str = ""  # the name of the CUDA build, where it is one
    accelerated: bool = True
    url: str = ""  # the index to take torch from; empty: whatever pip is configured for
    cards: int = 0  # NVIDIA cards here


def find_wheel(given: str, say: Callable[[str], None]) -> Wheel:
    """Look at the machine and decide. `given` is TORCH_INDEX_URL, which wins; every decision is said."""
    gpus, driver, broken = find_nvidia()
    if broken:
        say(f"{broken}. NVIDIA cards cannot be used until that is fixed.")
    if given:
        say(f"torch comes from {given}, as TORCH_INDEX_URL asks.")
        name = given.rstrip("/").rpartition("/")[2]
        if name.startswith(("rocm", "xpu")):
            say(f"{UNTRIED}: runs will use the CPU.")
        return Wheel(given, "", name if name.startswith("cu") else "", name != "cpu", given, len(gpus))
    choice = choose_torch(sys.platform, gpus or find_others(), driver)
    say(f"torch for {choice.because}.")
    # On Windows PyPI's torch uses no card: there pip asks the index itself, and says so where it is not reached.
    must = choice.accelerated and sys.platform == "win32"
    url = f"{INDEX}/{choice.folder}" if choice.folder else ""
    if not url or must or reachable(url):
        return choice._replace(url=url, cards=len(gpus))
    if choice.accelerated:
        say(
            f"{INDEX} cannot be reached, and PyPI's torch may not support the card. Use --reinstall once it can be "
            f"reached."
        )
        return Wheel(cards=len(gpus))
    say(f"{INDEX} cannot be reached: using the torch that pip finds, which can be gigabytes larger on Linux.")
    return choice


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether this index answers soon. In a thread, because looking up a name takes no time limit."""
    answered, finished = threading.Event(), threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/torch/", timeout=seconds):
            answered.set()
        finished.set()

    threading.Thread(target=ask, daemon=True).start()
    finished.wait(seconds)
    return answered.is_set()


def choose_torch(system: str, gpus: list[Gpu], driver: int) -> Wheel:
    """The torch build for sys.platform, the cards, and the NVIDIA driver's major version or 0."""
    if system == "darwin":
        return Wheel("", "PyPI's build for Apple silicon, with MPS (untested)")
    if nvidia := [gpu for gpu in gpus if gpu.vendor == "nvidia"]:
        return choose_cuda(system, nvidia, driver)
    if gpus:
        return cpu(system, f"{named(gpus)} is not used. {UNTRIED}")
    return cpu(system, "no NVIDIA card was found")


def named(gpus: list[Gpu]) -> str:
    """The cards of other makers than NVIDIA, by maker and chip."""
    return ", ".join(f"AMD {gpu.name}" if gpu.vendor == "amd" else gpu.name for gpu in gpus)


def cpu(system: str, because: str) -> Wheel:
    """The CPU build: on Linux from PyTorch's index, as PyPI's torch brings gigabytes of CUDA along."""
    return Wheel("cpu" if system == "linux" else "", f"CPU: {because}", accelerated=False)


def choose_cuda(system: str, gpus: list[Gpu], driver: int) -> Wheel:
    """Choose the CUDA build that serves most of the cards, or the CPU and the reason why none serves any."""
    newest = max(gpus, key=lambda gpu: gpu.capability)
    card = f"{newest.name} (compute capability {newest.capability[0]}.{newest.capability[1]})"
    runnable = [build for build in CUDA_BUILDS if driver >= build.driver]
    if not runnable:
        return cpu(
            system,
            f"the NVIDIA driver {driver} is too old for torch 2.9 and newer. Update it to 580 or newer, for "
            "a Pascal or Volta card to 525 or newer, and start again",
        )
    # max keeps the first of equals, which is the preferred one
    build = max(runnable, key=lambda build: sum(map(build.covers, gpus)))
    served = sum(map(build.covers, gpus))
    if not served and newest.capability < OLDEST_CARD:
        return cpu(system, f"{card} is older than Pascal (6.0), the oldest that bitsandbytes' 4-bit kernels support")
    if not served:
        return cpu(system, f"no supported torch build has kernels for {card}")
    folder = "" if build.name == "cu130" and system == "linux" else build.name
    version = f"CUDA {build.name[2:4]}.{build.name[4:]}"
    others = f"; {len(gpus) - served} of {len(gpus)} cards cannot be used with it" if served < len(gpus) else ""
    return Wheel(folder, f"{version}, for {card} and driver {driver}{others} (untested)", cuda=build.name)


def freest_card(gpus: list[Gpu], cuda: str) -> Gpu | None:
    """The card with most free memory among those that the installed CUDA build serves."""
    builds = [build for build in CUDA_BUILDS if build.name == cuda]
    served = [gpu for gpu in gpus if gpu.vendor == "nvidia" and any(build.covers(gpu) for build in builds)]
    return max(served, key=lambda gpu: gpu.free_mib, default=None)


def find_nvidia() -> tuple[list[Gpu], int, str]:
    """Ask nvidia-smi for the cards, the driver's major version, and what is wrong with it, if anything is."""
    tool = nvidia_smi()
    if not tool:
        return [], 0, ""
    # Drivers older than about 510 do not know compute_cap; what matters of them is that they are too old.
    for fields in ("index,name,driver_version,memory.free,compute_cap", "index,name,driver_version,memory.free"):
        query = [tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        try:
            asked = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=20)
        except (OSError, subprocess.TimeoutExpired) as error:
            return [], 0, f"{tool} does not answer: {error}"
        if asked.returncode == 0:
            return *parse_nvidia(asked.stdout), ""
    output = (asked.stdout + asked.stderr).strip().splitlines() or [f"exit status {asked.returncode}"]
    return [], 0, f"nvidia-smi cannot reach the driver: {output[0]}"


def nvidia_smi() -> str:
    """Find nvidia-smi in PATH or where WSL and Windows keep it; empty if it is nowhere."""
    windows = Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvidia-smi.exe")
    for place in (shutil.which("nvidia-smi"), "/usr/lib/wsl/lib/nvidia-smi", windows):
        if place and Path(place).is_file():
            return str(place)
    return ""


def parse_nvidia(answer: str) -> tuple[list[Gpu], int]:
    """Read nvidia-smi's csv. A reading that a card does not have comes as `[N/A]` and counts as 0."""
    gpus, driver = [], 0
    for line in answer.strip().splitlines():
        number, name, version, free, *capability = (field.strip() for field in line.split(","))
        major, _, minor = (capability or ["0.0"])[0].partition(".")
        known = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
        gpus.append(Gpu("nvidia", name, known, int(number), int(free) if free.isdigit() else 0))
        driver = int(version.partition(".")[0])
    return gpus, driver


def find_others(system: Path = Path("/sys/class")) -> list[Gpu]:
    """AMD's chips as Linux's compute driver shows them, and Intel's cards by PCI id; none elsewhere."""
    gpus = []
    for node in sorted((system / "kfd/kfd/topology/nodes").glob("*/properties")):
        facts = dict(line.split(" ", 1) for line in node.read_text().splitlines())
        code = int(facts.get("gfx_target_version", "0"))  # 90010 is gfx90a; 0 is a processor
        if code:
            gpus.append(Gpu("amd", f"gfx{code // 10000}{code // 100 % 100}{code % 100:x}"))
    for chip in sorted((system / "drm").glob("card*/device/device")):
        vendor, number = chip.with_name("vendor").read_text().strip(), chip.read_text().strip()
        if vendor == "0x8086" and number.startswith(INTEL_CARDS):
            gpus.append(Gpu("intel", f"Intel {number}"))
    return gpus
