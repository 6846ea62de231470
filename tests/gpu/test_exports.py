"""Exports of a run on a card: opened there by other programs, and proved equal to the chat."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.export import proof_worker
from core.export.pipeline import export
from core.export.proof import verify
from core.export.proof.loaded_model import place_for
from core.export.shared.options import ExportOptions
from core.workspace import Workspace, read_json, write_json
from tests.gpu.in_process import settings, train
from tests.gpu.machines import on, on_each
from tests.gpu_standin.install import figures
from tests.gpu_standin.machine import AMPERE, TURING, Card

MIB = 2**20
CARDS = on_each((TURING, AMPERE), soon=(AMPERE,))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The proof is done in this process, which has loaded the libraries already."""

    def in_this_process(jobs: list[dict[str, Any]], say: Any) -> Any:
        file = tmp_path_factory.mktemp("proof") / "jobs.json"
        write_json(file, [{**job, "new_tokens": 6} for job in jobs])
        assert proof_worker.main(file) == 0
        return read_json(file.with_suffix(".result.json"))

    monkeypatch.setattr(proof_worker, "trust_only", lambda workspace: None)  # it would count for all tests after
    monkeypatch.setattr(proof_worker, "claim_card", lambda: None)
    monkeypatch.setattr(verify, "in_a_new_process", in_this_process)


@pytest.mark.full
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("card", CARDS)
def test_each_export_answers_on_the_card_as_the_chat_does(card: Card, workspace, tiny, rows_file, tmp_path) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished", run.status().message
    on_card = figures().allocations
    for to in ("adapter", "merged", "gguf"):
        found = export(workspace, run, ExportOptions(to, tmp_path / to), lambda line, share: None)
        proof = found["verified"]
        assert proof["prompts"] > 0, proof
        assert all(check["equal"] == check["of"] for check in proof["checks"] if to == "adapter"), proof
        assert figures().allocations > on_card, "it ran on the card"
        on_card = figures().allocations
    _opens_elsewhere(tmp_path / "merged")


def _opens_elsewhere(folder: Path) -> None:
    """A stranger's lines: the merged model, on the card, in its own dtype."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map={"": 0})
    ids = AutoTokenizer.from_pretrained(folder)("hello", return_tensors="pt").to("cuda")
    assert torch.isfinite(model(**ids).logits).all() and model.device.type == "cuda"


@on(Card("small", (8, 6), 2048, driver_mib=800))
def test_a_second_model_needs_no_second_context(workspace: Workspace) -> None:
    """1,248 MiB are free; CUDA takes 450 of them, once. A proof needs 572 MiB beside the weights."""
    kept = torch.ones(1, device="cuda")
    assert place_for(1000, packed=False, model_type="llama").kind == "cuda"
    del kept
