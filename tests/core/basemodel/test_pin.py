"""A folder's base that was replaced since its run began is refused by name; one that was only copied is the same."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import core.train.loop as loop
from core.basemodel import pin
from core.basemodel.find import find_model
from core.basemodel.pin import change_of, hashing_meanwhile, pin_of, read_pin, stamp_of, write_pin
from core.chat.worker import Chat
from core.errors import ModelError, NibbleError, RecipeError, RunError
from core.export.shared.destination import ExportError
from core.export.shared.source import find_export_source
from core.launch.submit import prepare, submit
from core.recipe import make_recipe
from core.runs.chat_models import base_chat_model, find_chat_model
from core.runs.resume import resume
from core.runs.store import Run
from core.train.base_model import have_base
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly
from tests.tiny import tiny_model

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as it was."""
    return tiny_model(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture(scope="module")
def trained(pristine: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of four steps that has finished, over a base in a folder of its own."""
    base, limits = tmp_path_factory.mktemp("base") / "tiny", None
    if os.name == "posix":
        import resource

        limits = resource.getrlimit(resource.RLIMIT_DATA)
    shutil.copytree(pristine, base)
    values = {"model": str(base), "data.path": str(rows_file), "lora.rank": 4, "train.effective_batch": 4}
    values |= {"train.max_steps": 4, "evaluation.prompts": [], "data.eval_fraction": 0.0}
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        run = submit(make_recipe(values), workspace, QueueOnly(workspace))  # type: ignore[arg-type]
        assert loop.train(run) == "finished"
    run.write_status(state="finished")
    if limits is not None:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    yield run


@pytest.fixture
def run(trained: Run, pristine: Path, tmp_path: Path) -> Iterator[Run]:
    """A copy of the run, in its workspace; its base is put back afterwards."""
    copy = Run(Path(shutil.copytree(trained.dir, trained.dir.with_name(f"20200101-000000-{tmp_path.name[-12:]}"))))
    yield copy
    shutil.rmtree(copy.dir)
    _put(pristine, _base(trained))


def _base(run: Run) -> Path:
    return Path(run.recipe().model)


def _put(source: Path, base: Path) -> None:
    """As a person copies a folder: every file is new, and of now."""
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    for file in source.iterdir():
        (base / file.name).write_bytes(file.read_bytes())


def _other_weights(base: Path) -> None:
    tensors = load_file(base / WEIGHTS)
    save_file({name: each + 0.01 for name, each in tensors.items()}, base / WEIGHTS, {"format": "pt"})


def _one_bit_with_its_time_put_back(base: Path) -> None:
    file = base / WEIGHTS
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _another_setting(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))


def _another_template(base: Path) -> None:
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")


def _another_tokenizer(base: Path) -> None:
    file = base / "tokenizer.json"
    file.write_text(file.read_text().replace('"fuse_unk"', '"fuse_unk" '))


def _in_shards(base: Path) -> None:
    (base / WEIGHTS).rename(base / "model-00001-of-00001.safetensors")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "other weights": (_other_weights, f"{WEIGHTS} has different content"),
    "a bit of them": (_one_bit_with_its_time_put_back, f"{WEIGHTS} has different content"),
    "a setting": (_another_setting, r"config.json has \d+ bytes instead of \d+"),
    "the template": (_another_template, r"chat_template.jinja has \d+ bytes instead of \d+"),
    "the tokenizer": (_another_tokenizer, r"tokenizer.json has [\d,]+ bytes instead of [\d,]+"),
    "a name": (_in_shards, "model-00001-of-00001.safetensors was not there"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_base_is_refused_wherever_the_run_is_used(run: Run, what: str) -> None:
    """Resumed, talked to, exported, trained further: one sentence, with the file and the way out."""
    change, said = CHANGES[what]
    change(_base(run))
    workspace, whole = Workspace(run.workspace), f"has changed since the run began: {said}. Restore it, or st"
    before = {path: path.read_bytes() for path in run.dir.iterdir() if path.is_file()}
    with pytest.raises(RunError, match=whole):
        resume(run, QueueOnly(workspace), ["train.max_steps=6"])  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in run.dir.iterdir() if path.is_file()} == before
    with pytest.raises(ModelError, match=whole):
        have_base(run, run.recipe())
    with pytest.raises(ExportError, match=whole):
        find_export_source(run)
    with pytest.raises(RecipeError, match=whole):
        prepare(make_recipe({"lora.start_from": f"run:{run.id}", "data.path": str(run.dataset_file())}), workspace)
    with pytest.raises(ModelError, match=whole):
        _load(Chat(), workspace, find_chat_model(workspace, f"run:{run.id}"))


def _load(chat: Chat, workspace: Workspace, voice: Any) -> None:
    request = {"op": "load", "number": 1, "workspace": str(workspace.path), "chat_model": voice.as_request()}
    try:
        list(chat.handle(request))
    finally:
        chat._release()


def test_a_base_that_was_copied_is_the_same(run: Run, pristine: Path) -> None:
    _put(pristine, _base(run))
    workspace = Workspace(run.workspace)
    resume(run, QueueOnly(workspace), ["train.max_steps=6"])  # type: ignore[arg-type]
    kept = read_pin(run.dir / "base.json")
    assert have_base(run, run.recipe()).folder == _base(run)
    now = read_pin(run.dir / "base.json")
    assert kept and now and {n: e["sha256"] for n, e in kept.items()} == {n: e["sha256"] for n, e in now.items()}
    assert kept[WEIGHTS]["stamp"] != now[WEIGHTS]["stamp"], "so that the next look is a cheap one"
    assert find_export_source(run).base_folder == _base(run)
    chat = Chat()
    _load(chat, workspace, find_chat_model(workspace, f"run:{run.id}"))


def test_what_does_not_train_may_change(run: Run) -> None:
    (_base(run) / "README.md").write_text("hello")
    (_base(run) / "generation_config.json").write_text('{"temperature": 0.5}')
    resume(run, QueueOnly(Workspace(run.workspace)), ["train.max_steps=6"])  # type: ignore[arg-type]


def test_a_run_that_trains_it_further_is_held_to_the_same_base(run: Run) -> None:
    workspace = Workspace(run.workspace)
    recipe = make_recipe({"lora.start_from": f"run:{run.id}", "data.path": str(run.dataset_file())})
    further = prepare(recipe, workspace)
    assert read_pin(further.dir / "base.json") == read_pin(run.dir / "base.json")
    _other_weights(_base(run))
    with pytest.raises(ModelError, match=f"{WEIGHTS} has different content"):
        have_base(further, further.recipe())


def test_a_run_from_before_there_were_pins_goes_on_and_says_so(run: Run) -> None:
    (run.dir / "base.json").unlink()
    resume(run, QueueOnly(Workspace(run.workspace)), ["train.max_steps=6"])  # type: ignore[arg-type]
    have_base(run, run.recipe())
    assert (
        "is unchanged since this run began: the run was started by an earlier version"
        in (run.dir / "events.jsonl").read_text()
    )


def test_the_chat_loads_a_base_anew_where_its_folder_holds_another(run: Run) -> None:
    workspace, chat, base = Workspace(run.workspace), Chat(), _base(run)
    _load(chat, workspace, base_chat_model(str(base)))
    _other_weights(base)
    _load(chat, workspace, base_chat_model(str(base)))
    held = chat._adapters.base.get_input_embeddings().weight
    assert torch.equal(held.float(), load_file(base / WEIGHTS)["model.embed_tokens.weight"])


@pytest.fixture
def large(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base whose weights count as large: hashed as a sample of few bytes at once, and whole in the background."""
    monkeypatch.setattr(pin, "WHOLE_BYTES", 20_000)
    monkeypatch.setattr(pin, "SAMPLE_BYTES", 16)
    base = tmp_path / "large"
    shutil.copytree(pristine, base)
    return base


def _hashed(base: Path, file: Path, shelf: Path) -> dict[str, Any]:
    """What base.json holds once the thread beside the training is done."""
    write_pin(file, str(base), pin_of(base))
    with hashing_meanwhile(file, base, shelf):
        deadline = time.monotonic() + 20
        while (found := read_pin(file)) and found[WEIGHTS]["sha256"] is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert found is not None
    return found


def _flip(file: Path, place: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)[0]
        handle.seek(place)
        handle.write(bytes([byte ^ 1]))


def test_of_a_large_file_a_sample_is_kept_at_once_and_all_of_it_meanwhile(large: Path, tmp_path: Path) -> None:
    import hashlib

    assert pin_of(large)[WEIGHTS]["sha256"] is None
    found = _hashed(large, tmp_path / "base.json", tmp_path / "hashes.json")
    assert found[WEIGHTS]["sha256"] == hashlib.sha256((large / WEIGHTS).read_bytes()).hexdigest()
    place = (large / WEIGHTS).stat().st_size // 2 + 1000
    _flip(large / WEIGHTS, place)
    told: list[str] = []
    change = change_of(large, found, told.append)
    assert change is not None and change.name == WEIGHTS and "comparing its content" in told[0]
    assert change_of(large, found) is None, "who waits for nothing leaves it to the worker"
    _flip(large / WEIGHTS, place)
    assert change_of(large, found, told.append) is None


def test_other_weights_of_a_large_file_are_told_without_reading_it(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = pin_of(large)
    _other_weights(large)
    monkeypatch.setattr(pin, "sha256_of", lambda file: pytest.fail("it was read"))
    change = change_of(large, {WEIGHTS: pinned[WEIGHTS], **{n: pinned[n] for n in pinned if n != WEIGHTS}})
    assert change is not None and change.name == WEIGHTS


def test_a_base_is_hashed_once_for_all_runs_over_it(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "hashes.json"
    first = _hashed(large, tmp_path / "base.json", shelf)
    monkeypatch.setattr(pin, "_whole", lambda file, over: pytest.fail("it was read again"))
    assert _hashed(large, tmp_path / "second.json", shelf) == first
    assert stamp_of(large) and not stamp_of(tmp_path / "gone")


def test_what_is_damaged_is_no_pin(tmp_path: Path) -> None:
    for content in ("", "[]", '{"files": [1]}', '{"files": {"a": {}}}', '{"files": {"a": 3}}', '{"revision": "x"}'):
        (tmp_path / "base.json").write_text(content)
        assert read_pin(tmp_path / "base.json") is None
    with pytest.raises(NibbleError):
        find_model(str(tmp_path))
