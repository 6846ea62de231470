"""An export from the command to the folder: what is in it, what it proves, and what is refused with nothing left."""

from __future__ import annotations

import errno
import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from core.cli import main as cli_main
from core.export.adapter import write as adapter_write
from core.export.merged import shards
from core.export.merged.weights import MergedWeights
from core.export.merged.write import write_merged
from core.export.pipeline import export
from core.export.proof import verify
from core.export.shared.destination import Broken, ExportError
from core.export.shared.names import safe_name
from core.export.shared.options import ExportOptions
from core.export.shared.source import find_export_source, parts_of
from core.memory.tensor_counter import Counter
from core.runs.manifest import write_manifest
from core.runs.store import Run
from core.system.hardware import device
from core.workspace import ROOT, Workspace, read_json, write_json
from tests.core.export.made import NAME, run_with_adapter
from tests.tiny import tiny_model

USAGE = namedtuple("USAGE", "total used free")


def _nothing(line: str, share: float | None) -> None:
    """Stands where progress is told."""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The proof is done in this process, which has loaded the libraries already."""
    from core.export import proof_worker

    def in_this_process(jobs: list[dict[str, Any]], say: Any) -> Any:
        file = tmp_path_factory.mktemp("proof") / "jobs.json"
        write_json(file, [{**job, "new_tokens": 6} for job in jobs])
        assert proof_worker.main(file) == 0
        return read_json(file.with_suffix(".result.json"))

    monkeypatch.setattr(proof_worker, "trust_only", lambda workspace: None)  # it would count for all tests after
    monkeypatch.setattr(verify, "in_a_new_process", in_this_process)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose path would give the person away."""
    return Workspace.open(tmp_path_factory.mktemp("home-of-mallory"))


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    """A run over the starter."""
    made = run_with_adapter(workspace, "starter")
    rows = [{"step": step, "loss": 3.0 - step / 10} for step in range(1, 9)] + [{"step": 8, "eval_loss": 2.1}]
    for row in rows:
        made.append("metrics.jsonl", row)
    made.append("samples.jsonl", {"step": 8, "prompt": "What is the opposite of hot?", "answer": "Cold."})
    return made


@pytest.mark.usefixtures("at_once")
def test_the_adapter_has_all_that_others_need_and_nothing_of_this_machine(
    run: Run, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapter"
    options = ["--to", "adapter", "--out", str(out), "--data-dir", str(workspace.path), "--json"]
    assert cli_main.main(["export", run.id, *options]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["dir"] == str(out) and told["bytes"] == sum(file.stat().st_size for file in out.iterdir())
    assert told["verified"]["prompts"] > 0 and told["verified"]["equal"] == told["verified"]["prompts"]
    assert told["verified"]["against"] == "the chat, with the base model in 4 bits"
    names = {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "curves.svg",
        "generation_config.json", "recipe.yaml", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert set(told["files"]) == names == set(_names(out))
    with zipfile.ZipFile(told["zip"]) as packed:
        assert {Path(name).name for name in packed.namelist()} == names
    for file in out.iterdir():
        content = file.read_bytes()
        for private in (str(ROOT), str(Path.home()), str(workspace.path), "mallory", f"/{getpass.getuser()}/"):
            assert private.encode() not in content, (file.name, private)
    assert json.loads((out / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] == "starter"
    settings = yaml.safe_load((out / "recipe.yaml").read_text("utf-8"))
    assert (settings["data"]["path"], settings["dataset"]["name"]) == ("rows.jsonl", "rows.jsonl")
    card = (out / "README.md").read_text("utf-8")
    assert (
        f"{told['verified']['equal']} of {told['verified']['prompts']} replies equal" in card and "curves.svg" in card
    )
    checks = {check["name"]: check for check in told["verified"]["checks"]}
    ids = f"Token ids: {checks['token ids']['of']} of {checks['token ids']['of']} equal, by transformers and peft."
    assert f"\n- {ids}\n" in card and f"\n  {ids}\n" in captured.err
    assert len(checks) == 7 and all(check["equal"] == check["of"] for check in checks.values())


@pytest.mark.usefixtures("at_once")
def test_the_zip_in_an_empty_folder_answers_as_the_chat_by_the_lines_of_its_readme(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    from core.generation.generate import answers
    from core.model.load import load_adapter, load_base, load_tokenizer

    told = export(workspace, run, ExportOptions("adapter", tmp_path / "adapter"), _nothing)
    with zipfile.ZipFile(told["zip"]) as packed:
        packed.extractall(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere" / "adapter"
    shutil.copytree(ROOT / "presets" / "starter" / "model", folder / "starter")  # as the README says
    lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert lines is not None and str(ROOT) not in lines[1]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run([sys.executable, "-c", lines[1]], cwd=folder, env=plain, capture_output=True, text=True)
    source = find_export_source(run)
    chat = load_adapter(load_base(source.base, source.recipe.quantization, device()), source.adapter).eval()
    tokenizer = load_tokenizer(source.base, source.adapter)
    assert said.stdout.strip() == answers(chat, tokenizer, ["What is the opposite of hot?"], 64)[0], said.stderr


@pytest.fixture
def cut_short(tiny: Path, workspace: Workspace) -> Run:
    """A run that was interrupted after its best and a checkpoint, before its last adapter."""
    made = run_with_adapter(workspace, str(tiny))
    scaled = {"best": (made.dir / "best", 3, 0.5), "checkpoint": (made.dir / "checkpoints" / "5" / "adapter", 5, 2.0)}
    for folder, step, factor in scaled.values():
        shutil.copytree(made.adapter, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({name: weight * factor for name, weight in weights.items()}, folder / "adapter_model.safetensors")
        write_manifest(folder if folder.name == "best" else folder.parent, step)
    for file in (*scaled["checkpoint"][0].glob("tokenizer*"), scaled["checkpoint"][0] / "chat_template.jinja"):
        file.unlink()  # a checkpoint has none
    write_manifest(scaled["checkpoint"][0].parent, 5)
    shutil.rmtree(made.adapter)
    made.append("metrics.jsonl", {"step": 3, "eval_loss": 1.25})
    made.write_status(state="interrupted", step=5)
    return made


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("which", "step"), [("best", 3), pytest.param("5", 5, marks=pytest.mark.full)])
def test_a_runs_best_and_its_checkpoints_go_out_too(
    which: str, step: int, cut_short: Run, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parts_of(cut_short) == [("best, step 3", "best"), ("step 5", "checkpoint/5")]
    source = cut_short.dir / {"best": "best", "5": "checkpoints/5/adapter"}[which]
    options = ["--to", "adapter", "--data-dir", str(workspace.path), "--json", "--from"]
    for other, said in (("7", "no longer has checkpoint/7"), ("worst", "allowed: last, best"), ("last", "no adapter")):
        assert cli_main.main(["export", cut_short.id, *options, other]) == 1
        assert said in json.loads(capsys.readouterr().out)["error"]
    if which == "5":  # then no tokenizer is left but the base's own
        shutil.rmtree(cut_short.dir / "best")
    assert cli_main.main(["export", cut_short.id, *options, which]) == 0
    told = json.loads(capsys.readouterr().out)
    out = Path(told["dir"])
    assert out.name == f"Nightly-run-No1-{'best' if which == 'best' else 'step-5'}-adapter"
    sent = [folder / "adapter_model.safetensors" for folder in (out, source)]
    assert sent[0].read_bytes() == sent[1].read_bytes()
    assert {"tokenizer.json", "chat_template.jinja"} <= set(told["files"])
    assert told["verified"]["equal"] == told["verified"]["prompts"] > 0
    card = (out / "README.md").read_text("utf-8")
    assert f"| Steps | {step} of " in card and ("1.2500" in card) == (which == "best")


@pytest.mark.full
@pytest.mark.usefixtures("at_once")
def test_a_merge_onto_original_weights_is_held_against_16_bits_and_its_distance_from_the_chat_is_told(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    told = export(workspace, run, ExportOptions("merged", tmp_path / "merged", onto="original"), _nothing)
    verified = told["verified"]
    assert verified["against"] == "base model and adapter in 16 bits"
    assert verified["equal"] + verified["ties"] == verified["prompts"]
    assert verified["chat"]["largest_logit_difference"] > 10 * verified["largest_logit_difference"]
    config = json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))
    assert config["dtype"] == "float16" and "quantization_config" not in config
    assert load_file(tmp_path / "merged" / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.float16


@pytest.mark.full
def test_the_starter_merged_in_16_bits_answers_as_the_chat_proved_in_a_process_of_its_own(
    run: Run, workspace: Workspace, tmp_path: Path
) -> None:
    said: list[tuple[str, float | None]] = []
    told = export(workspace, run, ExportOptions("merged", tmp_path / "merged"), lambda *line: said.append(line))[
        "verified"
    ]
    assert told["equal"] == told["prompts"] and told["largest_logit_difference"] < 0.1
    last = told["prompts"]
    assert any(line.startswith("Rendering conversations in transformers: 3 of ") for line, _ in said)
    assert (f"Generating replies with the chat: {last} of {last} prompts", 1.0) in said
    assert (f"Generating replies with the export: 1 of {last} prompts", 1 / last) in said
    assert [check["by"] for check in told["checks"]] == ["transformers"] * 7 + ["safetensors"]


@pytest.mark.usefixtures("at_once")
def test_an_export_that_answers_otherwise_is_not_handed_over(
    run: Run, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(source: Any, folder: Path) -> None:
        write(source, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({name: weight * 3 for name, weight in weights.items()}, folder / "adapter_model.safetensors")

    write = adapter_write.write_adapter
    monkeypatch.setattr(adapter_write, "write_adapter", other)
    with pytest.raises(Broken, match="to the rest differently, so the export was rejected"):
        export(workspace, run, ExportOptions("adapter", tmp_path / "adapter"), _nothing)
    assert _names(tmp_path) == []


def test_what_cannot_be_is_refused_in_a_sentence_before_anything_is_written(
    run: Run, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not empty"):
        export(workspace, run, ExportOptions("merged", taken), _nothing)
    assert _names(taken) == ["thesis.txt"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(100, 90, 1_000_000))
    for to in ("adapter", "merged", "gguf"):
        with pytest.raises(ExportError, match="1.0 MB free"):
            export(workspace, run, ExportOptions(to, tmp_path / "full"), _nothing)
    assert _names(tmp_path) == ["taken"]


def test_a_base_that_has_moved_is_said(workspace: Workspace, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    moved = run_with_adapter(workspace, str(base))
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match="is not where it was"):
        export(workspace, moved, ExportOptions("merged", tmp_path / "out"), _nothing)


def test_a_disk_that_becomes_full_leaves_nothing_half_written(
    run: Run, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("core.export.merged.write.write_companions", full)
    with pytest.raises(ExportError, match="The disk became full"):
        export(workspace, run, ExportOptions("merged", tmp_path / "out"), _nothing)
    assert _names(tmp_path) == []


def test_a_merge_that_was_killed_goes_on_with_the_next_shard(
    tiny: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_export_source(run_with_adapter(workspace, str(tiny)))
    weights, written = MergedWeights(source, "dequantised", device()), []
    write = shards.write_shard

    def killed_at_the_third(path: Path, *rest: Any) -> str:
        if len(written) == 2 and path.parent.name == "out":
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, *rest)

    def noted(path: Path, *rest: Any) -> str:
        written.append(path.name)
        return write(path, *rest)

    def merge(folder: Path) -> dict[str, torch.Tensor]:
        write_merged(source, weights, folder, torch.float32, _nothing, shard_bytes=60_000)
        return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}

    for name in ("out", "whole"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("core.export.merged.write.write_shard", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path / "out")
    first = list(written)
    monkeypatch.setattr(
        "core.export.merged.write.write_shard", lambda path, *rest: written.append(path.name) or write(path, *rest)
    )
    (tmp_path / "out" / first[0]).write_bytes(b"spoiled")
    merged = merge(tmp_path / "out")
    assert written.count(first[0]) == 2 and written.count(first[1]) == 1, "what is whole is kept, what is not is not"
    whole = merge(tmp_path / "whole")
    assert set(merged) == set(whole) and all(torch.equal(merged[name], whole[name]) for name in whole)


def test_memory_holds_a_few_matrices_however_large_the_model_is(workspace: Workspace, tmp_path: Path) -> None:
    """Counted: at most a matrix as it is stored, in the chat's dtype, quantised, dequantised, merged and as written."""
    from transformers import AutoConfig, AutoModelForCausalLM

    base, out = tiny_model(tmp_path / "base"), tmp_path / "out"
    config = AutoConfig.from_pretrained(base)
    config.num_hidden_layers = 12
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    out.mkdir()
    source = find_export_source(run_with_adapter(workspace, str(base)))
    weights = MergedWeights(source, "dequantised", device())
    sizes = [torch.Size(each.shape).numel() * 4 for each in weights.tensors]
    with Counter() as counted:
        write_merged(source, weights, out, torch.float32, _nothing, 50_000)
    assert len(list(out.glob("*.safetensors"))) > 20
    assert counted.peak < 5 * max(sizes) < sum(sizes) / 3


def test_names_become_safe_file_names() -> None:
    assert safe_name(NAME) == "Nightly-run-No1"
    assert [safe_name(name) for name in ("..", "CON", "a/../b", "x" * 99)] == [
        "export",
        "CON-model",
        "a-..-b",
        "x" * 60,
    ]


@pytest.mark.full
@pytest.mark.usefixtures("at_once")
def test_a_mixture_of_experts_goes_out_as_an_adapter_and_no_other_way(workspace: Workspace, tmp_path: Path) -> None:
    mixture = run_with_adapter(workspace, str(tiny_model(tmp_path / "base", "qwen3_moe")))
    for to in ("merged", "gguf", "ollama"):
        with pytest.raises(
            ExportError,
            match="base is a mixture of experts, which cannot be merged or exported as GGUF here.* Export the adapter",
        ):
            export(workspace, mixture, ExportOptions(to, tmp_path / "out"), _nothing)
    assert _names(tmp_path) == ["base"]
    told = export(workspace, mixture, ExportOptions("adapter", tmp_path / "out"), _nothing)
    assert told["verified"]["prompts"] > 0, "over experts in 16 bits it may answer otherwise, which is said"
    assert "trained with the base's experts in 4 bits" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_numbers_of_an_adapter_are_whole_where_they_are(tmp_path: Path, workspace: Workspace, tiny: Path) -> None:
    """Programs that read JSON by its types, such as Rust's, take no 8.0 for a rank or an alpha."""
    from peft import LoraConfig

    for alpha, written in ((8.0, "8"), (7.5, "7.5")):
        source = find_export_source(run_with_adapter(workspace, str(tiny), **{"lora.alpha": alpha}))
        patterns = {"alpha_pattern": {"q_proj": 16.0, "k_proj": 0.5}, "rank_pattern": {"q_proj": 4.0}}
        out = tmp_path / written
        out.mkdir()
        adapter_write.write_adapter(replace(source, adapter_config={**source.adapter_config, **patterns}), out)
        text = (out / "adapter_config.json").read_text("utf-8")
        assert f'"lora_alpha": {written},' in text and '"q_proj": 16,' in text and '"k_proj": 0.5' in text
        assert '"q_proj": 4' in text and '"q_proj": 4.0' not in text and '"lora_dropout": 0.0' in text
        assert LoraConfig.from_pretrained(out).lora_alpha == alpha


@pytest.mark.parametrize(
    ("model_type", "capability", "dtype"),
    [
        ("llama", (8, 6), "bf16"),
        ("llama", (7, 5), "fp16"),
        ("gemma3_text", (8, 6), "bf16"),
        ("gemma3_text", (7, 5), "fp32"),
    ],
)
def test_the_readmes_lines_compute_in_a_dtype_that_the_model_does_not_overflow(
    workspace: Workspace, tiny: Path, model_type: str, capability: tuple[int, int], dtype: str
) -> None:
    source = find_export_source(run_with_adapter(workspace, str(tiny)))
    base = replace(source.base, config={**source.base.config, "model_type": model_type})
    card = str(adapter_write.adapter_card(replace(source, base=base)))
    lines = re.search(r"new_gpu = .*?(?=\\nquantization|\nquantization)", card.replace("\\n", "\n"), re.DOTALL)
    assert lines is not None
    gpu = SimpleNamespace(is_available=lambda: True, get_device_capability=lambda: capability)
    known = {"torch": SimpleNamespace(cuda=gpu, bfloat16="bf16", float16="fp16", float32="fp32")}
    exec(lines[0], known)
    assert known["dtype"] == dtype
