"""A run at its memory limit can still be saved: the limit is lifted, and the base is left alone."""

from pathlib import Path

import pytest
import torch

from core.basemodel.find import find_model
from core.model.load import attach_lora, load_base
from core.recipe import LoraSettings, QuantizationSettings
from core.runs.tail import Tail
from core.system.hardware import Device
from core.train import memory_limit
from core.train.adapter_files import write_adapter
from core.workspace import Workspace
from tests.gpu.in_process import settings, train

SEGMENT = 2 * 2**20


def test_an_adapter_is_written_without_memory_on_the_card(tiny: Path, tmp_path: Path) -> None:
    card = Device("cuda", "RTX 3060", 0, 0)
    model = attach_lora(load_base(find_model(str(tiny)), QuantizationSettings(), card), LoraSettings(), torch.float32)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    write_adapter(model, tmp_path / "ours")
    assert torch.cuda.max_memory_allocated() == before
    model.save_pretrained(tmp_path / "peft")  # or else there would be nothing to see
    assert torch.cuda.max_memory_allocated() > before
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "peft" / name).read_bytes()


def test_what_a_save_needs_beyond_the_budget_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    share = (torch.cuda.memory_reserved() + SEGMENT) / torch.cuda.mem_get_info()[1]
    monkeypatch.setattr(memory_limit, "_share", share)
    torch.cuda.set_per_process_memory_fraction(share, 0)
    with memory_limit.lifted():
        held = torch.empty(4 * SEGMENT, dtype=torch.uint8, device="cuda")
    del held
    torch.cuda.empty_cache()
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(4 * SEGMENT, dtype=torch.uint8, device="cuda")


def test_a_run_whose_checkpoints_find_no_memory_goes_on_and_keeps_its_adapter(
    tmp_path: Path, tiny: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.train import checkpoints

    write = checkpoints._write

    def greedy(*given: object) -> None:
        write(*given)
        if given[1] == 2:
            torch.empty(2**40, dtype=torch.uint8, device="cuda")

    monkeypatch.setattr(checkpoints, "_write", greedy)
    run = train(Workspace.open(tmp_path / "workspace"), settings(tiny, rows_file, **{"checkpoint.every_steps": 2}))
    assert run.status().state == "finished", run.status().message
    said = [event["message"] for event in Tail(run.dir / "events.jsonl").read() if event["kind"] == "warning"]
    assert [each.partition(".")[0] for each in said] == ["Memory ran out: step 2 could not be saved"]
    assert run.has_adapter
