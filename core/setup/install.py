"""Bring `.venv` up to the requirements, whatever state it is in: missing, half done, old or broken.

pip and its progress go to standard error. pip's log is .venv/install.log.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from core.errors import NibbleError
from core.setup import wheels
from core.setup.state import (
    DEVELOPMENT,
    PYTHON,
    REQUIREMENTS,
    ROOT,
    STAMP,
    VENV,
    fingerprint,
    read_stamp,
    ready,
    say,
    write_stamp,
)

LOG = VENV / "install.log"
CPU_BYTES = 2_500_000_000  # measured: 2.0 GB, and pip unpacks beside it
GPU_BYTES = 9_000_000_000  # an estimate


def run(dev: bool, reinstall: bool) -> None:
    """Install. If another launch is installing, wait for it, and install only what it left undone."""
    with InstallLock() as lock:
        if reinstall or not ready(dev):
            try:
                install(dev, reinstall, lock.file.fileno())
            except OSError as error:  # such as a .venv that another user made
                raise NibbleError(explain(str(error))) from error


class InstallLock:
    """One install at a time. The system frees the lock when its holder ends, so none goes stale.

    pip inherits it: a killed launch may leave pip running, and the next launch must wait for that.
    """

    def __enter__(self) -> "InstallLock":
        try:
            self.file = (ROOT / ".venv.lock").open("a+")
        except OSError as error:
            raise NibbleError(
                f"Nibble installs into its own folder, but {ROOT} is not writable ({error.strerror}). Move it to a "
                f"folder you own, or start it with --skip-install in a Python that has the requirements."
            ) from error
        announced = False
        while not self.take():
            if not announced:
                self.file.seek(0)
                say(f"another launch (process {self.file.read()}) is installing; waiting for it.")
            announced = True
            time.sleep(0.3)
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def take(self) -> bool:
        try:
            if sys.platform == "win32":
                import msvcrt

                self.file.seek(1 << 20)  # behind the number in the file, which others must be able to read
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def install(dev: bool, reinstall: bool, lock: int) -> None:
    check_machine(sys.platform, platform.machine(), sys.maxsize)
    stamp = read_stamp()
    torch = [line for line in requirements(REQUIREMENTS) if name_of(line) == "torch"]
    wheel = wheels.find_wheel(os.environ.get("TORCH_INDEX_URL", ""), say) if torch else wheels.Wheel()
    moved = bool(stamp) and stamp["folder"] != wheel.folder
    fresh = reinstall or moved or not venv_works()
    STAMP.unlink(missing_ok=True)  # first of all: from here on .venv is not to be trusted
    while True:
        if fresh:
            make_venv(lock)
        LOG.unlink(missing_ok=True)
        if torch:
            check_room(GPU_BYTES if wheel.accelerated else CPU_BYTES)
        say(f"installing into {VENV}; the first time takes minutes.")
        if torch and wheel.url:
            # in a call of its own, so that nothing but torch and what it needs can come from that index
            pip(lock, *torch, index=wheel.url)
        pip(lock, "-r", str(REQUIREMENTS), *(["-r", str(DEVELOPMENT)] if dev else []))
        problem = import_problem(dev)
        if not problem:
            break
        if fresh:
            raise NibbleError(f"the installed packages cannot be imported: {problem} (log: {LOG}).")
        say(f"the packages in .venv cannot be imported ({problem}): rebuilding it.")
        fresh = True
    kept = {} if fresh else stamp  # what a start without `test` does not touch is still there
    write_stamp({**kept, **fingerprint(dev), "folder": wheel.folder, "cuda": wheel.cuda, "cards": wheel.cards})
    say("installed.")


def check_machine(system: str, machine: str, largest: int) -> None:
    """Refuse machines for which no torch of our range exists, rather than let pip fail minutes later."""
    if largest < 2**32:
        raise NibbleError("this is a 32-bit Python, and torch has no 32-bit build: install a 64-bit Python.")
    if (system, machine) == ("darwin", "x86_64"):
        raise NibbleError("torch 2.9 and newer has no build for Intel Macs. On Apple silicon, use an arm64 Python.")


def requirements(file: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines()]
    return [line for line in lines if line]


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0]


def venv_works() -> bool:
    """Whether .venv has a Python of its own that finds its pip.

    After a system upgrade it does not, and what is left of a half deleted .venv may start the system's Python.
    """
    if not PYTHON.exists():
        return False
    own_pip = "import pip, sys; sys.exit(sys.prefix == sys.base_prefix)"
    return subprocess.call([str(PYTHON), "-I", "-c", own_pip], stderr=subprocess.DEVNULL) == 0


def make_venv(lock: int) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise NibbleError(
            f"this Python ({sys.executable}) has no ensurepip, so it cannot create an environment. On Debian "
            f"and Ubuntu: `sudo apt-get install python{version}-venv`, then start again."
        )
    say(f"making {VENV}")
    # not sys.executable: that may be .venv's own, which is about to go
    base = sys._base_executable  # type: ignore[attr-defined]
    command = [base, "-m", "venv", "--clear", str(VENV)]
    made = subprocess.run(command, capture_output=True, text=True, errors="replace", pass_fds=inherited(lock))
    if made.returncode:
        raise NibbleError(explain(made.stdout + made.stderr))


def inherited(lock: int) -> tuple[int, ...]:
    """File descriptors that keep the lock held in a child when this launch is killed. Windows has no such thing."""
    return () if os.name == "nt" else (lock,)


def check_space(needed: int, what: str, folder: Path = ROOT) -> None:
    """Refuse to begin what the disk of `folder` cannot hold."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NibbleError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, and {what} needs about {needed / 1e9:.1f} GB: make "
            "room, or move Nibble to a larger disk."
        )


def check_room(needed: int) -> None:
    """Refuse to install what the disk cannot hold. Where torch is in already, the bulk of it is there."""
    if not list(VENV.glob("[lL]ib/**/site-packages/torch-*")):
        check_space(needed, "Nibble", VENV)


def pip(lock: int, *what: str, index: str = "") -> None:
    """Install `what`: from `index`, or from wherever pip is set to look."""
    command = [str(PYTHON), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--log", str(LOG)]
    command += [*(["--index-url", index] if index else []), *what]
    if subprocess.call(command, stdout=sys.stderr, pass_fds=inherited(lock)):
        raise NibbleError(explain(LOG.read_text("utf-8", errors="replace") if LOG.exists() else "", index))


def explain(output: str, index: str = "") -> str:
    """What went wrong in pip or venv, in a sentence or two. Causes are looked for before their effects.

    `index` is the only package index that torch was looked for in, if there is one.
    """
    again = "Then start again; the installation continues where it stopped."
    which = f"{index}, where torch comes from," if index else "the package index"
    other = " If it is blocked, set TORCH_INDEX_URL to a mirror." if index else ""
    causes = {
        (
            "No space left on device",
            "WinError 112",
        ): f"the disk is full. Free some space (pip unpacks in TMPDIR). {again}",
        ("Permission denied", "WinError 5]", "Read-only file"): f"{VENV} is not writable. Check its owner. {again}",
        (
            "WinError 206",
            "Long Path support",
        ): f"the folder {ROOT} has too long a path for Windows and torch's files. Move Nibble to a short path such "
        f"as C:\\Nibble, and start again.",
        ("CERTIFICATE_VERIFY_FAILED",): "this machine does not trust the package index's certificate. "
        f"Behind a company proxy, point PIP_CERT at the proxy's certificate. {again}",
        ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError"): (
            f"{which} cannot be reached. Check the network (behind a proxy: HTTPS_PROXY).{other} {again}"
        ),
    }
    if shutil.disk_usage(ROOT).free < 20_000_000:  # ensurepip fails on a full disk without a word about it
        output = "No space left on device"
    for signs, cause in causes.items():
        if any(sign in output for sign in signs):
            return cause
    errors = [line.partition("ERROR: ")[2] for line in output.splitlines() if "ERROR: " in line]
    last = (errors or output.strip().splitlines() or ["it was killed from outside"])[-1]
    return f"installing failed: {last} (log: {LOG})"


CHECK = """
import importlib, importlib.metadata, sys
for wanted in sys.argv[1:]:
    name, _, module = wanted.partition("=")
    print(name, flush=True)
    importlib.metadata.version(name)
    if module:
        importlib.import_module(module)
"""


def import_problem(dev: bool) -> str:
    """Import what was installed. Returns the first package that fails with its error, or ''."""
    modules = {"nvidia-ml-py": "pynvml", "PyYAML": "yaml"}
    names = [name_of(line) for line in requirements(REQUIREMENTS)]
    wanted = [f"{name}={modules.get(name, name.replace('-', '_'))}" for name in names]
    if dev:  # stubs and tools have no module of their name: that they are there is enough
        wanted += [name_of(line) for line in requirements(DEVELOPMENT)]
    say("checking the installation")
    done = subprocess.run([str(PYTHON), "-I", "-c", CHECK, *wanted], capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return ""
    reached = (done.stdout.split() or ["python"])[-1]
    return f"{reached}: {(done.stderr.strip().splitlines() or [f'ended with {done.returncode}'])[-1]}"
