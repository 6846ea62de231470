"""The place of an export: whole or not there, never shared by two, and what a stop or a kill leaves of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.export.shared.destination import ExportError, partial_of, writing
from core.system.process import child_environment
from core.workspace import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from core.export.shared.destination import writing
with writing(Path(sys.argv[1]), goes_on=True) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_exports_never_write_to_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with writing(out) as folder:
        (folder / "mine").write_text("mine")
        with pytest.raises(ExportError, match="Another export is writing to"), writing(out):
            pytest.fail("it went on beside the other")
        assert _names(folder) == ["mine"], "the one that came second has taken nothing away"
    assert _names(tmp_path) == ["out"] and (out / "mine").read_text() == "mine"
    with pytest.raises(OSError, match="not empty"), writing(out):
        pass  # looked for before; a folder that was filled meanwhile is not replaced either
    assert (out / "mine").read_text() == "mine"


def test_one_that_fails_leaves_nothing_and_frees_its_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError), writing(out, goes_on=True) as folder:
        (folder / "half").write_text("half")
        raise ZeroDivisionError
    assert _names(tmp_path) == []


@pytest.mark.parametrize("goes_on", [True, False])
def test_one_that_is_stopped_keeps_what_the_next_goes_on_from_and_no_more(goes_on: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), writing(out, goes_on) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert _names(tmp_path) == ([".out.partial"] if goes_on else [])
    with writing(out, goes_on) as folder:
        assert _names(folder) == (["half"] if goes_on else [])
    assert _names(tmp_path) == ["out"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such kill")
def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], cwd=ROOT, env=child_environment(), check=False)
    assert killed.returncode == -signal.SIGKILL and _names(partial_of(out)) == ["half"] and not out.exists()
    with writing(out, goes_on=True) as folder:
        assert _names(folder) == ["half"]
    with writing(tmp_path / "other"):
        pass
    assert _names(tmp_path) == ["other", "out"]
