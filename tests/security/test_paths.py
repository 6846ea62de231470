"""No path that is typed, or that a request carries, leads where it must not: nothing there is read or written.

Every trick of path_tricks.py aims at two files: one outside of all folders that are allowed, and one in the folder
where the workspace keeps its keys. What opens either is seen, whichever way it is spelt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.server.downloads import PREFIX, SharedFiles
from core.arena.match import contestants
from core.basemodel.find import find_model
from core.data.locate import locate
from core.data.store import find_dataset, keep, safe_name
from core.errors import NibbleError
from core.export.import_adapter import import_adapter
from core.export.shared.names import safe_name as export_name
from core.launch.typed_input import load_typed, typed_chat_model, typed_dataset, typed_model, typed_recipe
from core.recipe import DataSettings, make_recipe
from core.runs.chat_models import find_chat_model
from core.runs.delete import is_run
from core.runs.find import find_run
from core.untrusted.paths import Reach, is_run_id
from core.workspace import ROOT, Workspace
from tests.security.path_tricks import SAMPLE, TRICKS, Trick
from tests.security.watched_ground import ROW, SECRET, Ground, Watch, lay


@pytest.fixture
def ground(tmp_path: Path, watch: Watch) -> Iterator[Ground]:
    """An empty workspace with links in it, and a model, an adapter and data outside of it."""
    yield (laid := lay(tmp_path, Workspace.open(tmp_path / "workspace"), watch))
    laid.watch.folders = ()


def _stays(ground: Ground, reach: Reach, path: Path) -> bool:
    state = ground.workspace.state
    inside = any(path.is_relative_to(root) for root in reach.roots)
    return (inside or reach.everywhere) and not path.is_relative_to(state) and not path.is_symlink()


def _path_or_none(ask: Callable[[], Any]) -> Any:
    """What it gives; None for a refusal in a sentence. Anything else than those is a defect."""
    try:
        return ask()
    except NibbleError as refusal:
        said = str(refusal)
        assert "\n" not in said and "Traceback" not in said and len(said) < 600, said
        return None


def test_the_corpus_is_what_it_claims() -> None:
    assert len(TRICKS) >= 80 and len(SAMPLE) == 18
    assert len({trick.name for trick in TRICKS}) == len({trick.pattern for trick in TRICKS}) == len(TRICKS)


@pytest.mark.parametrize("listening", [False, True], ids=["at the machine", "listening"])
def test_no_trick_leads_out_of_what_may_be_reached(listening: bool, ground: Ground) -> None:
    reach = Reach.of(ground.workspace, listening)
    for trick in TRICKS:
        for text, target in ground.tried(trick):
            takes: list[Callable[[], Any]] = [
                lambda text=text: reach.read(text, "The dataset"),
                lambda text=text: reach.write(text, "The export's folder"),
                lambda text=text: reach.write(text, "The export's folder", ground.workspace.exports),
            ]
            for take in takes:
                path = _path_or_none(take)
                assert path is None or _stays(ground, reach, path), f"{trick.name} leads to {path}"
                hits = path is not None and path.is_file() and SECRET in path.read_text()
                assert not hits or (reach.everywhere and target == ground.targets[0]), trick.name


def test_nothing_is_read_or_written_while_a_path_is_looked_at(ground: Ground) -> None:
    reach, workspace = Reach.of(ground.workspace, listening=True), ground.workspace
    ground.begin()
    for trick in TRICKS:
        for text, _ in ground.tried(trick):
            _path_or_none(lambda text=text: reach.read(text, "The dataset"))
            _path_or_none(lambda text=text: reach.write(text, "The folder", workspace.exports))
    ground.refuse_traces()


def _ways(ground: Ground, text: str) -> dict[str, Callable[[], Any]]:
    """Every function of the engine that is handed what was typed, as the app calls it."""
    reach, workspace = Reach.of(ground.workspace, listening=True), ground.workspace
    data = {"data.path": text, "data.format": "auto"}
    return {
        "a base model": lambda: find_model(typed_model(reach, text)).folder,
        "a dataset": lambda: find_dataset(typed_dataset(reach, text)),
        "a recipe's dataset": lambda: (
            keep(workspace, locate(typed_recipe(reach, workspace, make_recipe(data)).data, workspace)).path
        ),
        "a recipe's model": lambda: find_model(typed_recipe(reach, workspace, make_recipe({"model": text})).model),
        "a recipe's beginning": lambda: typed_recipe(reach, workspace, make_recipe({"lora.start_from": text})),
        "a recipe": lambda: load_typed(reach, workspace, text),
        "a base to talk to": lambda: (
            find_chat_model(workspace, typed_chat_model(reach, workspace, f"base:{text}")).adapter
        ),
        "an adapter to talk to": lambda: find_chat_model(
            workspace, typed_chat_model(reach, workspace, f"adapter:{text}")
        ),
        "a run to talk to": lambda: find_chat_model(workspace, typed_chat_model(reach, workspace, f"run:{text}")),
        "a checkpoint to talk to": lambda: find_chat_model(
            workspace, typed_chat_model(reach, workspace, f"run:last/checkpoint/{text}")
        ),
        "two that meet": lambda: contestants(workspace, [typed_chat_model(reach, workspace, f"base:{text}")]),
        "an adapter from elsewhere": lambda: import_adapter(workspace, reach.read(text, "The adapter"), reach=reach),
        "a run": lambda: find_run(workspace, text),
        "a run's id": lambda: is_run(workspace, text) or None,
        "a download": lambda: SharedFiles().file(f"{PREFIX}{text}/x"),
    }


def test_no_function_that_is_handed_a_path_goes_there(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for trick in SAMPLE:
        _try_all_ways(ground, trick)


@pytest.mark.full
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_no_function_goes_there_by_any_trick(trick: Trick, ground: Ground) -> None:
    _try_all_ways(ground, trick)


def _try_all_ways(ground: Ground, trick: Trick) -> None:
    for text, _ in ground.tried(trick):
        ground.begin()
        came = {name: _path_or_none(way) for name, way in _ways(ground, text).items() if _can_be(name, text)}
        ground.refuse_traces(came)
        reach = Reach.of(ground.workspace, listening=True)
        paths = [path for path in came.values() if isinstance(path, Path)]
        assert all(_stays(ground, reach, path) for path in paths), f"{trick.name}: {came}"


def _can_be(name: str, text: str) -> bool:
    """A recipe takes no half characters and no long adapter's key: that is refused before any path is looked at."""
    return not (name.startswith("a recipe's") and (len(text) > 250 or "\ud800" in text or not text.strip()))


def test_a_name_that_is_made_of_a_path_is_one_name(ground: Ground) -> None:
    for trick in TRICKS:
        for text, _ in ground.tried(trick):
            for name in (safe_name(text.replace("\ud800", "")), export_name(text)):
                assert name not in ("", ".", "..") and "/" not in name and "\\" not in name and "\0" not in name
                assert Path("folder", name).resolve().parent == Path("folder").resolve()


def test_only_ids_that_the_store_makes_are_ids(ground: Ground) -> None:
    assert is_run_id("20261122-140502-0a1f-pirate-on-talks")
    near = ["20261122-140502-0a1f-", "20261122-140502-0A1F-x", "٢٠٢٦1122-140502-0a1f-x", "20261122-140502-0a1f-x\n"]
    near += ["20261122-140502-0a1f-x/..", "20261122-140502-0a1f-x ", ".20261122-140502-0a1f-x", "last", ""]
    tried = [text for trick in TRICKS for text, _ in ground.tried(trick)]
    assert not any(is_run_id(text) for text in near + tried)


def test_a_person_at_the_machine_uses_their_own_folders_but_never_the_keys(ground: Ground) -> None:
    reach, workspace = Reach.of(ground.workspace), ground.workspace
    assert reach.read(str(ground.outside), "The model") == ground.outside
    assert reach.write(str(ground.outside / "new"), "The folder") == ground.outside / "new"
    assert reach.read("pyproject.toml", "The file") == Path.cwd() / "pyproject.toml"
    assert typed_model(reach, "starter") == "starter" and typed_dataset(reach, "pirate") == "pirate"
    assert typed_model(reach, "Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
    for text in (workspace.state, workspace.state / "token", workspace.path, "~/.cache/huggingface/token"):
        with pytest.raises(NibbleError, match="keys"):
            reach.read(str(text), "The dataset")


def test_where_others_come_in_only_own_and_allowed_folders_are_used(ground: Ground) -> None:
    workspace, outside = ground.workspace, ground.outside
    shut, opened = Reach.of(workspace, True), Reach.of(workspace, True, [str(outside)])
    for reach in (shut, opened):
        assert reach.read(str(workspace.datasets / "x.jsonl"), "The data") == workspace.datasets / "x.jsonl"
        assert reach.write("pirate", "The folder", workspace.exports) == workspace.exports / "pirate"
        for text in (workspace.runs, workspace.path, ROOT / "core", "/etc/passwd", "~"):
            with pytest.raises(NibbleError, match="--allow-path"):
                reach.read(str(text), "The dataset")
    assert opened.read(str(outside / "canary.jsonl"), "The data") == outside / "canary.jsonl"
    with pytest.raises(NibbleError, match="--allow-path FOLDER"):
        shut.read(str(outside / "canary.jsonl"), "The data")
    with pytest.raises(NibbleError, match="is not a folder"):
        Reach.of(workspace, True, [str(outside / "nothing")])


def test_what_is_not_there_is_refused_as_what_is(ground: Ground) -> None:
    """Else it could be asked which files this machine has."""
    reach = Reach.of(ground.workspace, listening=True)
    said = []
    for name in ("canary.jsonl", "nothing.jsonl"):
        with pytest.raises(NibbleError) as refusal:
            typed_dataset(reach, str(ground.outside / name))
        said.append(str(refusal.value).replace(name, ""))
    assert said[0] == said[1]


def test_a_run_takes_its_data_from_the_workspace_only(ground: Ground) -> None:
    from core.runs.create import create_run

    for file in (str(ground.targets[0]), "../../../outside/canary.jsonl", "../../state/canary.jsonl"):
        run = create_run(ground.workspace, make_recipe({}), {"file": file, "sha256": "x", "name": "x"})
        with pytest.raises(NibbleError, match="outside the workspace, which is not allowed"):
            run.dataset_file()


def test_a_folder_in_the_way_is_not_taken_for_a_dataset_of_the_hub(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ground.workspace.path.parent)
    with pytest.raises(NibbleError, match="hides the dataset"):
        locate(DataSettings(path="hf:workspace/state"), ground.workspace)


def test_a_checkpoint_whose_manifest_names_a_file_elsewhere_is_not_whole(ground: Ground) -> None:
    from core.runs.manifest import why_invalid

    folder = ground.workspace.runs / "run" / "checkpoints" / "1"
    folder.mkdir(parents=True)
    named = [trick.text(ground.places(ground.targets[0])) for trick in TRICKS[:12]]
    for name in named:
        listed = {"step": 1, "files": {name: {"bytes": len(ROW), "sha256": "x"}}}
        (folder / "manifest.json").write_text(json.dumps(listed))
        ground.begin()
        assert why_invalid(folder) is not None
        ground.refuse_traces()
