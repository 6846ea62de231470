"""llama.cpp is installed on request, by a real pip from a local wheel, and every way to fail is told in a sentence."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from core.cli.main import main
from core.errors import NibbleError
from core.setup import llama_cpp
from core.setup.install import name_of, requirements
from core.setup.state import DEVELOPMENT


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty environment with pip."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    return str(place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def _wheel(folder: Path, code: str = "__version__ = '2026.11.1'\n", version: str = "2026.11.1") -> None:
    info = f"xllamacpp-{version}.dist-info"
    with zipfile.ZipFile(folder / f"xllamacpp-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("xllamacpp.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: xllamacpp\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"xllamacpp.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_it_is_installed_from_where_pip_looks_and_every_line_is_told(python: str, index: Path) -> None:
    _wheel(index)
    told: list[str] = []
    assert llama_cpp.install(told.append, python=python) == "2026.11.1"
    assert told[0] == f"Installing llama.cpp into {python}." and told[-1].endswith("is installed.")
    assert any("Successfully installed xllamacpp-2026.11.1" in line for line in told)


def test_no_build_for_this_machine_is_said_with_what_works_without(python: str, index: Path) -> None:
    subprocess.run([python, "-m", "pip", "uninstall", "-y", "xllamacpp"], check=True, capture_output=True)
    _wheel(index, version="2027.1.0")  # beyond what this version of Nibble was tried with
    with pytest.raises(NibbleError, match="no build of llama.cpp for this machine.*Exports work without it"):
        llama_cpp.install(lambda line: None, python=python)


def test_one_that_does_not_import_is_said_with_the_line_that_says_why(python: str, index: Path) -> None:
    _wheel(index, "raise ImportError('libgomp.so.1: cannot open shared object file')\n")
    with pytest.raises(NibbleError, match="cannot be imported: ImportError: libgomp.so.1"):
        llama_cpp.install(lambda line: None, python=python)


def test_a_stop_ends_pip_and_says_that_nothing_is_used(index: Path, tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\necho looking\nexec sleep 60\n")
    slow.chmod(0o755)
    stopped = threading.Event()
    with pytest.raises(llama_cpp.InstallStopped, match="was stopped"):
        llama_cpp.install(lambda line: stopped.set() if line == "looking" else None, stopped, python=str(slow))


def test_a_full_disk_is_said_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "NEEDED_BYTES", 2**60)
    with pytest.raises(NibbleError, match="llama.cpp needs about"):
        llama_cpp.install(lambda line: None, python="nowhere")


def test_the_command_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "llama-cpp", "--json"]) == 0
    assert f'"version": "{llama_cpp.version()}"' in capsys.readouterr().out


def test_an_install_that_was_cut_short_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama_cpp.installed()
    info = tmp_path / "xllamacpp-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: xllamacpp\nVersion: 9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not llama_cpp.installed()


def test_tests_and_people_get_the_same_one() -> None:
    (asked,) = requirements(llama_cpp.REQUIREMENTS)
    assert name_of(asked) == llama_cpp.PACKAGE and asked in requirements(DEVELOPMENT)
