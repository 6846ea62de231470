"""Whom one can talk to: found by key, named for a person, refused in a sentence; and the text of a growing reply."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from core.errors import NibbleError
from core.generation.detokenise import Detokenizer
from core.generation.sampling import Sampling
from core.recipe import Recipe
from core.runs.chat_models import ChatModel, find_chat_model, list_chat_models, without_adapter
from core.runs.create import create_run
from core.runs.store import Run
from core.workspace import Workspace


def _adapter(folder: Path, base: str = "starter", tokenizer: bool = True) -> Path:
    """A folder that looks like an adapter."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    if tokenizer:
        (folder / "tokenizer_config.json").write_text("{}")
    return folder


def _with_manifest(folder: Path, step: int) -> None:
    (folder / "manifest.json").write_text(json.dumps({"step": step, "files": {}}))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace of its own."""
    return Workspace.open(tmp_path)


@pytest.fixture
def run(workspace: Workspace) -> Run:
    """A run with a result, a best, two checkpoints, and one that is on its way out."""
    recipe = Recipe(name="Pirate", data={"template": "chatml"})
    made = create_run(workspace, recipe, {"file": "x", "sha256": "", "name": "x"}, "finished")
    _adapter(made.adapter)
    _with_manifest(_adapter(made.dir / "best"), 8)
    for step in (4, 12):
        _adapter(made.dir / "checkpoints" / str(step) / "adapter", tokenizer=False)
        _with_manifest(made.dir / "checkpoints" / str(step), step)
    (made.dir / "checkpoints" / "2").mkdir()
    return made


def test_a_run_its_best_and_its_checkpoints_come_before_the_bases(workspace: Workspace, run: Run) -> None:
    _adapter(workspace.path / "adapters" / "from elsewhere", "/other/machine/presets/starter/model")
    _adapter(workspace.path / "adapters" / "of nobody", "")
    (workspace.path / "adapters" / "empty").mkdir()
    found = {voice.key: voice for voice in list_chat_models(workspace)}
    own = [f"run:{run.id}", f"run:{run.id}/best", f"run:{run.id}/checkpoint/12", f"run:{run.id}/checkpoint/4"]
    assert list(found)[:6] == [*own, "adapter:from elsewhere", "base:starter"]
    assert [found[key].label for key in own] == [
        "Pirate",
        "Pirate · best, step 8",
        "Pirate · step 12",
        "Pirate · step 4",
    ]
    assert found["adapter:from elsewhere"].model == "starter"
    # A checkpoint holds no tokenizer: the recipe says which template it is spoken to with.
    assert found[own[0]].tokenizer == run.adapter and found[own[2]].tokenizer is None
    assert found[own[2]].data == {"template": "chatml", "generation_prompt": "auto", "system": "keep"}


def test_a_voice_is_found_by_its_key_and_survives_the_way_to_the_process(workspace: Workspace, run: Run) -> None:
    for voice in list_chat_models(workspace):
        found = find_chat_model(workspace, voice.key)
        assert found.adapter == voice.adapter and found.model == voice.model
        assert ChatModel.from_request(json.loads(json.dumps(found.as_request()))) == found
    assert find_chat_model(workspace, "run:last").key == f"run:{run.id}"
    alone = without_adapter(find_chat_model(workspace, "run:last"))
    assert (alone.key, alone.adapter, alone.tokenizer) == ("base:starter", None, run.adapter)
    outside = _adapter(workspace.path / "somewhere")
    assert find_chat_model(workspace, f"adapter:{outside}").adapter == outside


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "is not a chat model"),
        ("pirate", "is not a chat model"),
        ("run:nowhere", "There is no run"),
        ("run:last/checkpoint/2", "no longer has checkpoint/2: only the newest checkpoints are kept, currently 12, 4"),
        ("adapter:nowhere", "There is no adapter 'nowhere'"),
        ("adapter:pickled", "only pickled weights"),
        ("adapter:of nobody", "does not name its base model"),
    ],
)
def test_who_is_not_there_is_said(workspace: Workspace, run: Run, key: str, said: str) -> None:
    _adapter(workspace.path / "adapters" / "of nobody", "")
    pickled = _adapter(workspace.path / "adapters" / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(NibbleError, match=said):
        find_chat_model(workspace, key)


def test_a_run_without_an_adapter_names_its_checkpoint(workspace: Workspace, run: Run) -> None:
    (run.adapter / "adapter_config.json").unlink()
    with pytest.raises(NibbleError, match="no adapter yet: it is finished. Its checkpoint of step 12"):
        find_chat_model(workspace, f"run:{run.id}")


@pytest.mark.parametrize(
    "change", [{"temperature": -1}, {"top_p": 1.1}, {"min_p": -0.1}, {"max_new_tokens": 0}, {"stop": ("x",) * 20}]
)
def test_a_sampling_out_of_range_names_the_setting(change: dict[str, object]) -> None:
    with pytest.raises(NibbleError, match=next(iter(change))):
        Sampling(**change)


class Letters:
    """A tokenizer whose tokens are bytes."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return bytes(ids).decode("utf-8", "replace")


def test_letters_of_many_bytes_are_never_shown_in_half() -> None:
    text = "Grüße, 日本語 🏴‍☠️ và tiếng Việt. " * 3
    chance = random.Random(0)
    for _ in range(20):
        said, shown = Detokenizer(Letters()), ""
        for byte in text.encode():
            said.add(byte)
            if chance.random() < 0.4:
                now = said.text()
                assert now.startswith(shown) and "\ufffd" not in now and text.startswith(now)
                shown = now
        assert said.final() == text


def test_bytes_that_are_no_letter_are_shown_in_the_end() -> None:
    said = Detokenizer(Letters())
    for byte in b"a" + b"\xff" * 8:
        said.add(byte)
        said.text()
    assert said.final() == "a" + "\ufffd" * 8
    assert said.final().startswith(said.text()) and len(said.text()) > 4


def test_nothing_of_a_stop_text_is_ever_shown() -> None:
    said = Detokenizer(Letters(), ("### Human:", "\n\n\n"))
    for byte in b"Aye ## # ### Hu yes\n\n### Human: more":
        said.add(byte)
        if said.stopped:
            break
        assert not any(said.text().endswith(end) for end in ("#", "### H"))
    assert said.text() == said.final() == "Aye ## # ### Hu yes\n\n"
