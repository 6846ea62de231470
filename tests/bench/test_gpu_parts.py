"""`bench gpu`: its parts run one after the other whatever becomes of them, within a time that is dealt out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench import _keep, _pack_for_gpu, gpu
from bench._gpu_frame import Frame, NotHere, TookTooLong, failure, row, without_bars
from bench._gpu_parts import PARTS, Part
from core.cli.main import main as cli
from core.errors import CallError
from core.setup.install import name_of, requirements
from core.system.hardware import device
from core.system.process import child_environment
from core.workspace import ROOT

ROW = row("speed", 2.0, "tokens/s", 1.0, 1.5, True)


def _part(name: str, seconds: int = 10) -> Part:
    return Part(name, "something", seconds, lambda seed, frame: iter(()))


def _runs(monkeypatch, script: str) -> None:
    """Every part is this program."""
    command = {"args": [sys.executable, "-c", script], "env": child_environment()}
    monkeypatch.setattr(gpu, "as_process", lambda *words: command)


def test_what_a_part_has_written_counts_though_it_then_crashes(monkeypatch) -> None:
    script = (
        f"print({json.dumps(ROW)!r}); print({json.dumps('no card of 48 GB')!r}); raise ValueError('no kernel image')"
    )
    _runs(monkeypatch, script)
    done = gpu.measure(_part("packing"), 0, False, 60)
    assert done.rows[0] == ROW
    assert done.left_out == ["no card of 48 GB"]
    assert done.rows[1]["name"] == "packing: failed. ValueError: no kernel image"
    assert done.rows[1]["holds"] is False


def test_a_part_that_does_not_end_is_ended_with_its_children_and_keeps_its_rows(monkeypatch, tmp_path) -> None:
    child = f"import time; time.sleep(3); open({str(tmp_path / 'alive')!r}, 'w')"
    script = (
        f"import subprocess, sys, time; print({json.dumps(ROW)!r}, flush=True);"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); sys.stdout.write('half a li'); sys.stdout.flush();"
        "time.sleep(60)"
    )
    _runs(monkeypatch, script)
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.5)
    began = time.monotonic()
    done = gpu.measure(_part("packing"), 0, False, 1.0)
    assert time.monotonic() - began < 10
    assert done.rows == [ROW]
    assert done.left_out == ["packing: it was ended at its time limit, 1 s."]
    time.sleep(3)
    assert not (tmp_path / "alive").exists()


def test_time_is_dealt_out_by_shares_and_what_is_not_used_goes_to_the_next(monkeypatch) -> None:
    limits = []
    monkeypatch.setattr(gpu, "measure", lambda part, seed, tiny, limit: limits.append(limit) or gpu.Done(part))
    parts = [_part("a", 100), _part("none", 0), _part("b", 200), _part("c", 200)]
    assert len([*gpu.measure_all(parts, 0, False, time.monotonic() + 1000)]) == 4
    assert limits == [pytest.approx(200, abs=1), 1.0, pytest.approx(500, abs=1), pytest.approx(1000, abs=1)]


def test_the_parts_take_no_longer_than_the_benchmark_may() -> None:
    assert sum(part.seconds for part in PARTS) <= 60 * gpu.MINUTES
    assert len({part.name for part in PARTS}) == len(PARTS)


def _raises(error: Exception):
    def measure():
        yield ROW
        raise error

    return measure


def test_a_case_that_fails_costs_only_itself() -> None:
    frame = Frame(ends_at=time.monotonic() + 60)
    assert [*frame.attempt("65B", _raises(NotHere("this card has 24 GB.")))] == [ROW, "65B: this card has 24 GB."]
    assert [*frame.attempt("65B", _raises(TookTooLong()))][1] == "65B: it took longer than the time left."
    failed = [*frame.attempt("65B", _raises(RuntimeError("CUDA error:\n an illegal access")))][1]
    assert failed["name"] == "65B: failed. RuntimeError: CUDA error: an illegal access"
    assert failed["holds"] is False
    late = Frame(ends_at=time.monotonic() - 1)
    assert [*late.attempt("65B", _raises(RuntimeError()))] == ["65B: no time was left."]


def test_tiny_models_break_no_bar_but_a_case_that_failed_has_failed() -> None:
    slow, failed = {**ROW, "holds": False}, failure("chat", "no kernel image")
    assert without_bars([slow, failed]) == [{**slow, "bar": None, "holds": None}, failed]


def test_without_a_card_it_says_so_and_fails(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(gpu, "device", lambda: device().__class__("cpu", "CPU", 0, 0))
    monkeypatch.setattr(gpu, "unused_card", lambda: None)
    assert cli(["bench", "gpu", "--data-dir", str(tmp_path)]) == 1
    assert "no NVIDIA GPU was found on this machine" in capsys.readouterr().err


def test_a_card_that_torch_cannot_use_is_named(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "unused_card", lambda: "NVIDIA GeForce RTX 3060")
    monkeypatch.setattr(gpu, "device", lambda: device().__class__("cpu", "CPU", 0, 0))
    with pytest.raises(Exception, match="RTX 3060 is present, but the installed torch supports only the CPU"):
        gpu.main()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["startup", "--tiny"], "--tiny is for `bench gpu` only"),
        (["startup", "--part", "chat"], "--part is for `bench gpu` only"),
        (["gpu", "--tiny", "--keep"], "--tiny and --keep exclude each other"),
    ],
)
def test_options_that_do_nothing_are_refused(line: list[str], said: str, capsys, tmp_path) -> None:
    assert cli(["bench", *line, "--data-dir", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_part_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(CallError, match="no part called 'chatt'. Its parts: doctor, "):
        gpu._chosen(["chatt"])


def test_figures_from_another_machine_are_kept_with_that_machine(monkeypatch, tmp_path) -> None:
    docs, file = tmp_path / "benchmarks.md", tmp_path / "figures" / "bench-gpu.json"
    docs.write_text("# Benchmarks\n\n## chat\n\nas it was\n\n## gpu\n\nof last year\n", encoding="utf-8")
    monkeypatch.setattr(_keep, "FILE", docs)
    monkeypatch.setattr(_keep, "device", lambda: device().__class__("cuda", "NVIDIA H200", 0, 0))
    monkeypatch.setattr(_keep, "cuda_driver", lambda: "580.95.05")
    _keep.write(file, "gpu", 7, [ROW, {**ROW, "name": "a | b", "holds": False}], ["Left out: streaming."])
    monkeypatch.undo()
    monkeypatch.setattr(_keep, "FILE", docs)
    _keep.main(file)
    text = docs.read_text(encoding="utf-8")
    assert text.index("## chat\n\nas it was") < text.index("## gpu\n")
    assert "of last year" not in text
    assert "NVIDIA H200, driver 580.95.05" in text
    assert "| speed | 2.0 tokens/s | 1.0 | 1.5 | yes |" in text
    assert "| a / b | 2.0 tokens/s | 1.0 | 1.5 | **no** |" in text
    assert text.endswith("- Left out: streaming.\n")
    assert file.with_suffix(".md").read_text(encoding="utf-8") in text


def test_all_that_is_required_is_packed_or_there() -> None:
    names = {name_of(line).lower() for line in requirements(ROOT / "requirements.txt")}
    there = {canonicalize_name(name) for name in (*_pack_for_gpu.PACKED, *_pack_for_gpu.THERE)}
    assert {canonicalize_name(name) for name in names} <= there
    machine = {"extra": "", "python_version": "3.12", "sys_platform": "linux", "platform_system": "Linux"}
    for name in _pack_for_gpu.PACKED:
        needed = [Requirement(text) for text in metadata.requires(name) or []]
        wanted = [each.name for each in needed if each.marker is None or each.marker.evaluate(machine)]
        assert [each for each in wanted if canonicalize_name(each) not in there] == [], name


@pytest.mark.skipif(sys.platform == "win32", reason="the machine has Linux")
def test_packages_are_unpacked_before_those_of_the_machine(tmp_path: Path) -> None:
    file, folder = tmp_path / "packages.zip", tmp_path / "environment"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("peft/__init__.py", "packed = True")
    _pack_for_gpu.unpack(file, folder)
    script = "import importlib.util, peft; print(peft.packed, importlib.util.find_spec('torch') is not None)"
    said = subprocess.run([str(folder / "bin" / "python"), "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "True"]
