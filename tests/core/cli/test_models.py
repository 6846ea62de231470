"""`models stores` lists, verifies and deletes quantised copies of bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.basemodel.find import find_model
from core.basemodel.stores import WEIGHTS
from core.cli.main import main
from core.settings import QuantizationSettings
from core.system.hardware import Device
from core.workspace import Workspace


def _json(capsys: pytest.CaptureFixture[str], *given: str) -> tuple[int, Any]:
    status = main(["models", "stores", *given, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_stores_are_listed_verified_and_deleted(
    tiny: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from core.model.load import load_base
    from core.model.stored import Stores

    assert main(["models", "stores"]) == 0
    assert "No quantised copies yet" in capsys.readouterr().out
    monkeypatch.setenv("NIBBLE_STORES", "always")
    kept = Stores(Workspace.open(data_dir).quantised)
    load_base(find_model(str(tiny)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33), stores=kept)
    status, [row] = _json(capsys)
    size = sum(file.stat().st_size for file in (kept.folder / row["key"]).iterdir())
    assert (status, row["label"], row["bits"], row["bytes"], row["whole"]) == (0, "tiny", 4, size, True)
    assert main(["models", "stores"]) == 0
    assert "4 bits     tiny\n" in capsys.readouterr().out
    assert _json(capsys, "--verify", row["key"]) == (0, {"verified": row["key"], "whole": True})
    data = bytearray((kept.folder / row["key"] / WEIGHTS).read_bytes())
    data[0] ^= 1
    (kept.folder / row["key"] / WEIGHTS).write_bytes(data)
    status, said = _json(capsys, "--verify", row["key"])
    assert status == 1 and "is damaged: weights.bin" in said["error"]
    assert _json(capsys, "--delete", row["key"]) == (0, {"deleted": row["key"], "bytes": size})
    assert _json(capsys) == (0, [])
    for asked in ("--delete", "--verify"):
        status, said = _json(capsys, asked, "../runs")
        assert status == 1 and "There is no quantised copy with the key '../runs'" in said["error"]
    assert _json(capsys, "--delete", " ")[0] == 2
