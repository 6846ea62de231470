"""Datasets of the Hub: one split streamed into one Parquet file from a stand-in, or one sentence that says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.data.dataset import load
from core.data.huggingface import fetch, looks_like_hub_id
from core.data.read import open_source
from core.errors import DataError
from core.recipe import DataSettings
from core.workspace import ROOT, Workspace
from tests.core.data.read.odd_parts import GOOD, LINES, PARQUET
from tests.hub import stand_in_hub

_CARD = """---
configs:
- config_name: small
  data_files: small.jsonl
- config_name: large
  data_files: large.jsonl
---
"""
_SPLITS = """---
configs:
- config_name: default
  data_files:
  - split: train_sft
    path: a.jsonl
  - split: test_sft
    path: b.jsonl
---
"""
_ASK = """
import json, sys
from core.data.dataset import load
from core.data.huggingface import fetch
from core.errors import DataError
from core.workspace import Workspace
answers = []
for wanted in json.loads(sys.argv[2]):
    try:
        answers.append(str(fetch(Workspace.open(sys.argv[1]), *wanted)))
    except DataError as error:
        answers.append("refused: " + str(error))
print(json.dumps(answers))
"""
Wanted = tuple[str, str | None, str | None]


def _ask(endpoint: str, folder: Path, *wanted: Wanted, offline: bool = False) -> list[str]:
    """What `fetch` returns or raises for each, in a process that knows no other Hub than `endpoint`."""
    values = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": str(int(offline))}
    environment = {**os.environ, **values, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", _ASK, str(folder / "workspace"), json.dumps(wanted)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Hub with datasets of several makes."""
    folder = tmp_path_factory.mktemp("repos")
    other = json.dumps({**GOOD[0], "extra": [1, 2]}) + "\n"
    secret = tmp_path_factory.mktemp("home") / "secret.jsonl"
    secret.write_text(LINES)
    files = {
        "plain/train.jsonl": LINES,
        "splits/train.jsonl": LINES,
        "splits/test.jsonl": LINES + LINES,
        "three/data/train-00000-of-00001.parquet": PARQUET,
        "three/data/validation-00000-of-00001.parquet": PARQUET,
        "three/data/test-00000-of-00001.parquet": PARQUET,
        "sft/README.md": _SPLITS,
        "sft/a.jsonl": LINES,
        "sft/b.jsonl": LINES + LINES,
        "odd/validation.jsonl": LINES,
        "odd/test.jsonl": LINES,
        "configs/README.md": _CARD,
        "configs/small.jsonl": LINES,
        "configs/large.jsonl": LINES + LINES,
        "nested/data/train-0.jsonl": LINES,
        "nested/data/train-1.jsonl": LINES,
        "columns/train-0.jsonl": LINES,
        "columns/train-1.jsonl": other,
        "script/script.py": "raise SystemExit",
        "bare/README.md": "# Nothing",
        "elsewhere/README.md": f"---\nconfigs:\n- config_name: default\n  data_files: {secret}\n---\n",
        "packed/data/train-00000-of-00001.parquet": PARQUET,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    repos = {f"datasets/user/{each.name}": each for each in folder.iterdir()}
    with stand_in_hub(repos, gated=("datasets/user/gated",)) as hub:
        yield hub.url


@pytest.fixture(scope="module")
def answers(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[Wanted, str]:
    """What the Hub's datasets gave, asked for once."""
    names = (
        "plain",
        "splits",
        "three",
        "sft",
        "odd",
        "configs",
        "columns",
        "nested",
        "packed",
        "script",
        "bare",
        "gated",
        "unknown",
        "elsewhere",
    )
    wanted: list[Wanted] = [(f"user/{name}", None, None) for name in names]
    wanted += [("hf:user/splits", None, "test"), ("user/splits", None, "none"), ("user/configs", "large", None)]
    wanted += [("user/configs", "huge", None), ("hf:user/nested/data/train-1.jsonl", None, None)]
    wanted += [("hf:user/nested/data/none.jsonl", None, None), ("hf:user/gated/rows.jsonl", None, None)]
    return dict(zip(wanted, _ask(endpoint, tmp_path_factory.mktemp("asked"), *wanted), strict=True))


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        (("user/plain", None, None), 3),
        (("user/splits", None, None), 3),
        (("hf:user/splits", None, "test"), 6),
        (("user/configs", "large", None), 6),
        (("user/nested", None, None), 6),
        (("user/packed", None, None), 3),
        (("user/sft", None, None), 3),
    ],
)
def test_a_split_comes_as_one_parquet_file(answers: dict[Wanted, str], wanted: Wanted, rows: int) -> None:
    path = Path(answers[wanted])
    assert path.suffix == ".parquet", answers[wanted]
    read = list(open_source(path).rows())
    assert len(read) == rows
    assert read[0]["prompt"] == GOOD[0]["prompt"]


def test_one_file_of_a_dataset_comes_as_it_is(answers: dict[Wanted, str]) -> None:
    path = Path(answers["hf:user/nested/data/train-1.jsonl", None, None])
    assert path.name == "train-1.jsonl" and path.read_text() == LINES


def test_a_validation_split_comes_with_it_and_is_held_out(answers: dict[Wanted, str]) -> None:
    path = Path(answers["user/three", None, None])
    assert sorted(file.name for file in path.iterdir()) == ["train.parquet", "validation.parquet"]
    loaded = load(path, DataSettings())
    assert loaded.splits == {"train": 3, "held_out": 3, "left_alone": 0}
    said = {finding.code: finding.message for finding in loaded.findings}
    assert "train.parquet (3 rows); held out for evaluation: validation.parquet (3 rows)" in said["named-splits"]
    assert "were not downloaded and are not used: test" in said["splits-not-fetched"]


def test_that_a_test_split_stays_on_the_hub_is_said(answers: dict[Wanted, str]) -> None:
    loaded = load(Path(answers["user/sft", None, None]), DataSettings())
    assert [f.message for f in loaded.findings if f.code == "splits-not-fetched"] == [
        "Other splits of the dataset were not downloaded and are not used: test_sft."
    ]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("user/odd", None, None), "user/odd has several splits: choose one of validation, test"),
        (("user/splits", None, "none"), "user/splits has no split 'none': choose one of train, test"),
        (("user/configs", None, None), "user/configs has several configurations: choose one of small, large"),
        (("user/configs", "huge", None), "no configuration 'huge': choose one of small, large"),
        (("user/gated", None, None), "user/gated is gated: accept its terms at"),
        (("user/unknown", None, None), "There is no dataset user/unknown on Hugging Face, or it is private"),
        (("user/script", None, None), "user/script is generated by a script"),
        (("user/columns", None, None), "user/columns: its files have different columns"),
        (("user/bare", None, None), "user/bare could not be downloaded"),
        (("hf:user/nested/data/none.jsonl", None, None), "The dataset user/nested has no file data/none.jsonl"),
        (("hf:user/gated/rows.jsonl", None, None), "user/gated is gated: accept its terms at"),
        (("user/elsewhere", None, None), "Data files don't belong to user/elsewhere"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(answers: dict[Wanted, str], wanted: Wanted, said: str) -> None:
    assert answers[wanted].startswith("refused: ")
    assert said in answers[wanted]


def test_what_was_fetched_is_there_without_a_network(endpoint: str, tmp_path: Path) -> None:
    wanted: Wanted = ("user/plain", None, None)
    first = _ask(endpoint, tmp_path, wanted)
    assert _ask("http://127.0.0.1:9", tmp_path, wanted) == first
    offline = _ask("http://127.0.0.1:9", tmp_path, wanted, ("user/splits", None, None), offline=True)
    assert offline[0] == first[0]
    assert "user/splits is not on this machine, and HF_HUB_OFFLINE forbids" in offline[1]


def test_no_network_is_said_in_one_sentence(tmp_path: Path) -> None:
    assert "Hugging Face cannot be reached" in _ask("http://127.0.0.1:9", tmp_path, ("user/plain", None, None))[0]


@pytest.mark.parametrize("path", ["user/name", "hf:user/name", " HuggingFaceH4/no_robots "])
def test_an_id_is_known_by_its_look(path: str) -> None:
    assert looks_like_hub_id(path)


@pytest.mark.parametrize(
    "path", ["pirate", "/a/b", "a/b/c", "data/rows.jsonl", "./a", "hf:name", "a b/c", "", "tests/core", "~/a"]
)
def test_a_path_is_no_id(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert not looks_like_hub_id(path)


def test_offline_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE forbids"):
        fetch(Workspace.open(tmp_path), "user/name")
