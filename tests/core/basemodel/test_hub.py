"""A model from the Hub: downloaded and trained for real, from a stand-in; or refused in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.untrusted.paths import is_plain
from core.workspace import ROOT
from tests.hub import COMMIT, stand_in_hub

TOKEN = "hf_secret_of_a_test"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[str]:
    """A hub with a good model, one of pickles only, one without a config, and a gated one."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("pickled", "bare"):
        (folder / name).mkdir()
    (folder / "pickled" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    (folder / "bare" / "model.safetensors").write_bytes(b"x")
    repos = {"org/good": tiny, "org/pickled": folder / "pickled", "org/bare": folder / "bare"}
    with stand_in_hub(repos, gated=("org/gated",)) as hub:
        yield hub.url


def _environment(endpoint: str, home: Path) -> dict[str, str]:
    values = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    values["HF_TOKEN"] = TOKEN
    return {**os.environ, **values, "PYTHONPATH": str(ROOT)}


def _call(endpoint: str, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "core.cli", *command],
        env=_environment(endpoint, home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _train(endpoint: str, home: Path, model: str, *more: str) -> subprocess.CompletedProcess[str]:
    return _call(endpoint, home, "train", "quickstart", "--set", f"model={model}", "--json", *more)


@pytest.mark.full
def test_the_command_downloads_ahead(endpoint: str, tmp_path: Path, tiny: Path) -> None:
    first = json.loads(_call(endpoint, tmp_path, "download", "org/good", "--json").stdout)
    assert (first["model"], first["revision"]) == ("org/good", COMMIT)
    assert first["downloaded_bytes"] == first["bytes"] - (tiny / "config.json").stat().st_size
    assert (Path(first["folder"]) / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    again = _call("http://127.0.0.1:9", tmp_path, "download", "org/good")
    assert again.stdout.startswith("org/good is on this machine: it was there already.")


def test_a_model_is_downloaded_and_trained(endpoint: str, tmp_path: Path, rows_file: Path) -> None:
    sets = [f"data.path={rows_file}", "train.max_steps=2", "evaluation.max_new_tokens=2"]
    more = [part for each in sets for part in ("--set", each)]
    done = _train(endpoint, tmp_path / "home", "org/good", "--data-dir", str(tmp_path / "ws"), *more)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["state"], answer["steps"]) == (0, "finished", 2), done.stderr
    assert "· Downloaded " in done.stderr
    adapter = json.loads((Path(answer["dir"]) / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "org/good"
    assert json.loads((Path(answer["dir"]) / "base.json").read_text()) == {"model": "org/good", "revision": COMMIT}
    written = [file.read_bytes() for file in (tmp_path / "ws").rglob("*") if file.is_file()]
    assert not any(TOKEN in text for text in (*map(repr, written), done.stdout, done.stderr))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/gated", "is gated: accept its terms at"),
        ("org/unknown", "There is no model org/unknown on Hugging Face, or it is private"),
        ("org/pickled", "only pickled weights"),
        ("org/bare", "has no config.json"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_before_a_run_exists(
    endpoint: str, tmp_path: Path, model: str, said: str
) -> None:
    done = _train(endpoint, tmp_path / "home", model, "--data-dir", str(tmp_path / "ws"))
    assert done.returncode == 1
    assert said in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "ws" / "runs").iterdir()) if (tmp_path / "ws" / "runs").is_dir() else True


def test_no_network_is_said_in_one_sentence(tmp_path: Path) -> None:
    done = _train("http://127.0.0.1:9", tmp_path / "home", "org/good", "--data-dir", str(tmp_path / "ws"))
    assert done.returncode == 1
    assert "Hugging Face cannot be reached" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("name", ["../x.model", "..\\x.model", "/x", "a//b", "C:x", "a/../b", "", "x\0"])
def test_a_file_name_that_leaves_its_folder_is_not_plain(name: str) -> None:
    assert not is_plain(name)
    assert is_plain("model-00001-of-00002.safetensors") and is_plain("additional_chat_templates/a.jinja")
