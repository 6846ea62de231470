"""A model on the Hub that does not hold what its architecture asks for is refused before its weights travel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from core.basemodel.download import DownloadStopped, refuse_misfit_online
from core.basemodel.find import find_model
from core.basemodel.headers import fetch_headers, read_header
from core.errors import ModelError
from core.model.fit import ModelFit, refuse_misfit
from core.workspace import ROOT
from tests.hub import Hub, stand_in_hub, use_hub
from tests.tiny import tiny_model

pytestmark = pytest.mark.full  # minutes of models loaded, in all


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole model, one that lacks its head, one of a kind without a language model, and one cut short."""
    folder = tmp_path_factory.mktemp("hub")
    found = {f"org/{name}": folder / name for name in ("whole", "headless", "pictures", "short", "shards")}
    tiny_model(found["org/whole"])
    for name in ("headless", "pictures", "short", "shards"):
        shutil.copytree(found["org/whole"], found[f"org/{name}"])
    tensors = load_file(found["org/whole"] / "model.safetensors")
    file = found["org/headless"] / "model.safetensors"
    save_file({name: each for name, each in tensors.items() if "lm_head" not in name}, file, {"format": "pt"})
    (found["org/pictures"] / "config.json").write_text('{"model_type": "mistral3"}')
    file = found["org/short"] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    (found["org/shards"] / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + ('lm_head' in name)}-of-00002.safetensors" for name in tensors}
    for shard in set(places.values()):
        part = {name: each for name, each in tensors.items() if places[name] == shard}
        # A long note in front, so that the header does not come with the first bytes.
        save_file(part, found["org/shards"] / shard, {"note": "x" * 150_000})
    index = found["org/shards"] / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return found


@pytest.fixture
def hub(repos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The only Hub that this process, and those that it starts, know."""
    with stand_in_hub(repos) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}.items():
            monkeypatch.setenv(name, value)
        yield hub


def test_headers_come_without_the_weights(hub: Hub, repos: dict[str, Path]) -> None:
    for name in ("org/whole", "org/shards"):
        found = find_model(name)
        files = [repos[name] / file.name for file in found.files if file.name.endswith(".safetensors")]
        here = [tensor for file in files for tensor in read_header(file)]
        assert list(fetch_headers(found.source, str(found.revision), found.files)) == here
        assert refuse_misfit(found) == ModelFit()
    assert all(each.range for each in hub.asked if "/storage" in each.path), "never a file as a whole"


def test_a_server_that_knows_no_ranges_is_listened_to_no_longer_than_needed(
    hub: Hub, repos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.hub import _Handler

    send = _Handler._file

    def without_ranges(self: _Handler, file: Path, etag: str, from_storage: bool) -> None:
        del self.headers["Range"]
        send(self, file, etag, from_storage)

    monkeypatch.setattr(_Handler, "_file", without_ranges)
    found = find_model("org/whole")
    assert refuse_misfit(found) == ModelFit()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/headless", r"org/headless: its files lack 1 of the 21 weights .*\(lm_head.weight\)"),
        ("org/pictures", r"Models of the type 'mistral3' cannot be trained here"),
        ("org/short", r"model.safetensors of org/short cannot be used: it is cut short"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_its_weights_travel(hub: Hub, model: str, said: str) -> None:
    """By a process of its own, as whoever downloads holds no torch."""
    with pytest.raises(ModelError, match=said):
        refuse_misfit_online(find_model(model))
    assert all(each.range for each in hub.asked if each.path.endswith(".safetensors") and each.sent)


def test_the_command_refuses_it_too(hub: Hub, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "core.cli", "download", "org/headless", "--json", "--data-dir", str(tmp_path / "ws")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "its files lack 1 of the 21 weights" in json.loads(done.stdout)["error"]
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_it_is_stopped_at_once(hub: Hub) -> None:
    pressed = threading.Event()
    threading.Timer(0.5, pressed.set).start()
    with pytest.raises(DownloadStopped):
        refuse_misfit_online(find_model("org/whole"), pressed.is_set)
