"""llama.cpp as an optional part: Export opens GGUFs with it. Installed on request, into the Python that runs Nibble.

Standard library only, as all of core/setup.
"""

import importlib
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from core.errors import NibbleError
from core.setup import install as setup
from core.setup.state import ROOT

REQUIREMENTS = ROOT / "requirements-llama-cpp.txt"
PACKAGE = "xllamacpp"
COMMAND = "python launch.py setup llama-cpp"
# Behind "not opened by llama.cpp: ".
MISSING = f"it is not installed. Install it with `{COMMAND}` or in the Export tab, and export again"
# A wheel of 30 MB to 60 MB, unpacked beside it.
NEEDED_BYTES = 250_000_000
_PATIENCE_SECONDS = 10.0


class InstallStopped(NibbleError):
    """The install was stopped on request; nothing of it is used."""


def version() -> str | None:
    """Which one is installed here, as far as its files are whole; None where none is."""
    importlib.invalidate_caches()  # it may have come while this process ran
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    # pip writes the list of files last: without one, an install was cut short.
    return found.version if found.read_text("RECORD") else None


def installed() -> bool:
    """Whether GGUFs can be opened by llama.cpp here."""
    return version() is not None


def install(
    say: Callable[[str], None],
    stopped: threading.Event | None = None,
    python: str = sys.executable,
    requirements: Path = REQUIREMENTS,
) -> str:
    """Install it with pip, from wherever pip is set to look, and import it once. Returns its version.

    `say` gets pip's lines as they come. `stopped`, set from another thread, ends pip and raises InstallStopped. Raises
    NibbleError in a sentence for a person. `python` and `requirements` are others in tests.
    """
    setup.check_space(NEEDED_BYTES, "llama.cpp")
    with setup.InstallLock() as lock:
        say(f"Installing llama.cpp into {python}.")
        output = _pip(python, requirements, say, stopped or threading.Event(), lock.file.fileno())
    asked = [python, "-I", "-c", f"import {PACKAGE}; print({PACKAGE}.__version__)"]
    done = subprocess.run(asked, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or output[-1:] or [f"ended with {done.returncode}"])[-1]
        raise NibbleError(f"llama.cpp was installed but cannot be imported: {last}")
    say(f"llama.cpp ({PACKAGE} {done.stdout.strip()}) is installed.")
    return done.stdout.strip()


def _pip(python: str, requirements: Path, say: Callable[[str], None], stopped: threading.Event, lock: int) -> list[str]:
    """pip's lines. Only what is built already is taken: nothing is compiled here."""
    command = [python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "--only-binary", ":all:", "-r", str(requirements)]
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=setup.inherited(lock),
    ) as pip:
        watcher = threading.Thread(target=_end_when_asked, args=(pip, stopped), daemon=True)
        watcher.start()
        try:
            for line in pip.stdout or ():
                lines.append(line.rstrip())
                say(lines[-1])
            pip.wait()
        except BaseException:
            _end(pip)
            raise
    if stopped.is_set():
        raise InstallStopped("The installation of llama.cpp was stopped. You can start it again at any time.")
    if pip.returncode:
        raise NibbleError(_explained("\n".join(lines)))
    return lines


def _end_when_asked(pip: subprocess.Popen[str], stopped: threading.Event) -> None:
    while pip.poll() is None:
        if stopped.wait(0.2):
            _end(pip)
            return


def _end(pip: subprocess.Popen[str]) -> None:
    pip.terminate()
    try:
        pip.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        pip.kill()


def _explained(output: str) -> str:
    if "No matching distribution" in output and not any(sign in output for sign in ("ConnectionError", "Resolution")):
        return (
            "pip found no build of llama.cpp for this machine and Python in its package index ("
            f"{PACKAGE}). Exports work without it: GGUFs are then proved as far as transformers reads them."
        )
    if "No module named pip" in output:
        return f"This Python has no pip. Install {PACKAGE} into it yourself: {REQUIREMENTS.name} says which."
    return setup.explain(output).replace(
        "Then start again; the installation continues where it stopped.", "Then try again."
    )
