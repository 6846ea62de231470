"""What `data tokens` shows is what the trainer trains on: a forward pass by hand over it gives the trainer's loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.basemodel.find import find_model
from core.cli.main import main
from core.launch.submit import submit
from core.model.load import load_base
from core.recipe import QuantizationSettings, make_recipe
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.system.hardware import Device
from core.workspace import Workspace
from tests.tiny import write_jsonl
from tests.waiting import ended

ROW = {
    "messages": [
        {"role": "user", "content": "a red ball? ünï 🎈"},
        {"role": "assistant", "content": " the lazy dog — 你好 "},
        {"role": "user", "content": "and then?"},
        {"role": "assistant", "content": "a blue kite\n🪁"},
    ]
}


def _flat(tokens: list[dict[str, Any]]) -> tuple[list[int], list[bool]]:
    ids = [token["id"] if isinstance(token["id"], list) else [token["id"]] for token in tokens]
    return sum(ids, []), [token["trained"] for token, group in zip(tokens, ids, strict=True) for _ in group]


def _loss_by_hand(model: Any, ids: list[int], trained: list[bool]) -> float:
    """The mean of -log p(token | those before it) over the trained tokens, written out."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    total, count = 0.0, 0
    for at in range(1, len(ids)):
        if trained[at]:
            total -= float(logits[at - 1, ids[at]] - logits[at - 1].logsumexp(0))
            count += 1
    return total / count


@pytest.mark.parametrize("train_on", ["replies", "last_reply", "everything"])
def test_the_trainers_loss_is_the_one_over_what_data_tokens_shows(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], train_on: str
) -> None:
    file = write_jsonl(tmp_path / "row.jsonl", [ROW])
    workspace = Workspace.open(tmp_path / "workspace")
    call = ["data", "tokens", str(file), "--model", str(tiny), "--set", f"data.train_on={train_on}", "--json"]
    assert main([*call, "--data-dir", str(workspace.path)]) == 0
    ids, trained = _flat(json.loads(capsys.readouterr().out))
    base = load_base(find_model(str(tiny)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33))
    expected = _loss_by_hand(base, ids, trained)
    settings = {"train.max_steps": 1, "train.effective_batch": 1, "data.train_on": train_on}
    run = submit(
        make_recipe({"model": str(tiny), "data.path": str(file), **settings}), workspace, Supervisor(workspace)
    )
    assert ended(run) == "finished", run.log_tail()
    losses = [row["loss"] for row in Tail(run.dir / "metrics.jsonl").read() if "loss" in row]
    assert losses == [pytest.approx(expected, abs=1e-5)]
