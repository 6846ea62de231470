"""Splits that the data names are honoured: train is trained on, validation held out, test left alone, and said."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.data.changes import content_hash
from core.data.check import Training, check
from core.data.dataset import Loaded, load
from core.data.read.splits import column_of_splits, uses_of_files
from core.data.split import split_rows
from core.data.store import keep
from core.errors import DataError
from core.preflight.save import save_cleaned
from core.recipe import DataSettings, make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.train.rows import prepare_rows
from core.workspace import Workspace
from tests.tiny import chat_rows, tiny_tokenizer, write_jsonl

Files = dict[str, list[dict[str, Any]]]


def _rows(about: str, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{about} question {number}?", "completion": f"Answer {number}."} for number in range(count)]


def _folder(path: Path, files: Files) -> Path:
    for name, rows in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        elif name.endswith(".csv"):
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            file.write_text("\n".join(lines) + "\n")
        else:
            write_jsonl(file, rows)
    return path


def _questions(loaded: Loaded, held_out: bool) -> set[str]:
    """The first word of each question, of rows held out or of those trained on."""
    held = loaded.held_out.holds([each.row for each in loaded.usable])
    pairs = zip(loaded.usable, held, strict=True)
    return {each.messages[0]["content"].split()[0] for each, is_held in pairs if is_held == held_out}


def _said(loaded: Loaded, code: str = "named-splits") -> str:
    return next((finding.message for finding in loaded.findings if finding.code == code), "")


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "valid.jsonl", "test.jsonl"),  # mlx-lm
        ("train.jsonl", "validation.jsonl", "test.jsonl"),
        ("train.csv", "dev.csv", "test.csv"),
        ("my_train.csv", "my_val.csv", "my_test.csv"),
        ("train-v1.1.jsonl", "dev-v1.1.jsonl", "test-v1.1.jsonl"),  # SQuAD
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet", "data/test-00000-of-1.parquet"),
        ("train/0.parquet", "validation/0.parquet", "test/0.parquet"),
        ("data/train/part-0.jsonl", "data/eval/part-0.jsonl", "data/test/part-0.jsonl"),
        ("TrainSet.jsonl", "DevSet.jsonl", "TestSet.jsonl"),
        ("train_sft.jsonl", "val_sft.jsonl", "test_sft.jsonl"),
        ("alpaca.jsonl", "valid.jsonl", "test.jsonl"),
    ],
)
def test_a_folders_files_are_used_as_their_names_say(names: tuple[str, str, str], tmp_path: Path) -> None:
    files = {names[0]: _rows("Train", 5), names[1]: _rows("Valid", 3), names[2]: _rows("Test", 2)}
    loaded = load(_folder(tmp_path / "mine", files), DataSettings())
    assert loaded.splits == {"train": 5, "held_out": 3, "left_alone": 2}
    assert (_questions(loaded, held_out=False), _questions(loaded, held_out=True)) == ({"Train"}, {"Valid"})
    assert loaded.rows == 10 == len(loaded.usable) + len(loaded.dropped)
    assert {drop.reason for drop in loaded.dropped} == {f"it belongs to {names[2]}, which is not used"}
    for part in (
        f"Trained on: {names[0]} (5 rows)",
        f"{names[1]} (3 rows)",
        f"not used for training or evaluation: {names[2]} (2 rows)",
    ):
        assert part in _said(loaded)


@pytest.mark.parametrize("within", ["", "mlx_data/"])
def test_so_are_a_zips(within: str, tmp_path: Path) -> None:
    path = tmp_path / "test.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, about in (("train", "Train"), ("valid", "Valid"), ("test", "Test")):
            lines = "".join(json.dumps(row) + "\n" for row in _rows(about, 4))
            archive.writestr(f"{within}{name}.jsonl", lines)
    loaded = load(path, DataSettings())
    assert loaded.splits == {"train": 4, "held_out": 4, "left_alone": 4}
    assert _questions(loaded, held_out=False) == {"Train"}


def test_what_kaggle_wants_answered_is_left_alone_and_a_share_is_held_out_instead(tmp_path: Path) -> None:
    files = {
        "train.csv": _rows("Train", 6),
        "test.csv": [{"id": "1", "text": "Test"}],
        "sample_submission.csv": [{"id": "1", "target": "0"}],
    }
    loaded = load(_folder(tmp_path / "kaggle", files), DataSettings())
    assert loaded.splits == {"train": 6, "held_out": 0, "left_alone": 2}
    assert "a share of the training rows is held out instead" in _said(loaded)


def test_a_split_column_says_it_too_and_is_no_part_of_the_row(tmp_path: Path) -> None:
    splits = ["train", "train", "validation", "test", "train", None]
    rows = [{**row, "split": split} for row, split in zip(_rows("A", 6), splits, strict=True)]
    loaded = load(write_jsonl(tmp_path / "rows.jsonl", rows), DataSettings())
    assert loaded.splits == {"train": 4, "held_out": 1, "left_alone": 1}
    assert [(drop.row, drop.reason) for drop in loaded.dropped] == [
        (4, "it belongs to `split` 'test', which is not used")
    ]
    assert loaded.held_out.first(9) == [3]
    assert "split" not in {column["name"] for column in loaded.columns}


def test_rows_to_train_on_may_come_after_a_thousand_to_test_by(tmp_path: Path) -> None:
    rows = [{**row, "split": "test"} for row in _rows("Test", 1200)]
    rows += [{**row, "split": "train"} for row in _rows("Train", 5)]
    loaded = load(write_jsonl(tmp_path / "rows.jsonl", rows), DataSettings())
    assert loaded.splits == {"train": 5, "held_out": 0, "left_alone": 1200}


@pytest.mark.parametrize("value", ["left", "7", "train station"])
def test_a_column_that_is_called_so_and_says_something_else_is_no_split(value: str) -> None:
    assert column_of_splits([{"split": "train"}, {"split": value}]) is None


def test_one_json_object_may_hold_the_splits(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(
        json.dumps({"version": 1, "train": _rows("Train", 3), "dev": _rows("Valid", 2), "test": [{"a": 1}]})
    )
    loaded = load(path, DataSettings())
    assert loaded.splits == {"train": 3, "held_out": 2, "left_alone": 1}
    assert "not used for training or evaluation: 'test' in all.json (1 row)" in _said(loaded)


@pytest.mark.parametrize("name", ["test.jsonl", "valid.jsonl", "my_test.jsonl"])
def test_one_file_alone_is_simply_the_data(name: str, tmp_path: Path) -> None:
    loaded = load(write_jsonl(tmp_path / name, _rows("Test", 4)), DataSettings())
    assert (loaded.splits, len(loaded.usable), _said(loaded)) == (None, 4, "")


@pytest.mark.parametrize(
    "names",
    [
        ("WhatsApp Chat with Val.txt", "WhatsApp Chat with Bo.txt"),
        ("my tests.jsonl", "others.jsonl"),
        ("test results of may.jsonl", "others.jsonl"),
        ("2024-01-01.json", "2024-01-02.json"),
    ],
)
def test_names_that_only_sound_so_make_no_splits(names: tuple[str, ...]) -> None:
    assert set(uses_of_files(names)) == {"train"}


def test_without_a_file_to_train_on_all_are_and_that_is_said(tmp_path: Path) -> None:
    loaded = load(_folder(tmp_path / "x", {"valid.jsonl": _rows("A", 2), "test.jsonl": _rows("B", 2)}), DataSettings())
    assert loaded.splits is None and len(loaded.usable) == 4
    assert "no training split: all rows are trained on" in _said(loaded, "named-splits-unclear")


def test_they_can_be_ignored_and_that_is_said(tmp_path: Path) -> None:
    path = _folder(tmp_path / "x", {"train.jsonl": _rows("A", 3), "test.jsonl": _rows("B", 2)})
    loaded = load(path, DataSettings(named_splits="ignore"))
    assert loaded.splits is None and len(loaded.usable) == 5
    assert "including test.jsonl (2 rows)" in _said(loaded, "named-splits-ignored")


def test_a_broken_test_file_hinders_nothing(tmp_path: Path) -> None:
    path = _folder(tmp_path / "x", {"train.jsonl": _rows("A", 3)})
    (path / "test.json").write_text('[{"prompt": "Hi",')
    assert len(load(path, DataSettings()).usable) == 3


def test_all_of_it_held_out_is_refused(tmp_path: Path) -> None:
    path = _folder(tmp_path / "x", {"train.jsonl": [{"prompt": "", "completion": ""}], "valid.jsonl": _rows("A", 3)})
    with pytest.raises(DataError, match="none are left to train on"):
        load(path, DataSettings())


def test_the_report_counts_them_and_nothing_is_drawn_from_what_is_trained_on(tmp_path: Path) -> None:
    files = {"train.jsonl": chat_rows(30), "valid.jsonl": _rows("Valid", 6), "test.jsonl": _rows("Test", 2)}
    path = _folder(tmp_path / "x", {**files, "valid.jsonl": chat_rows(36)[30:]})
    report = check(path, DataSettings(), _tokenizer(tmp_path), Training()).as_json()
    assert report["splits"] == {"train": 30, "held_out": 6, "left_alone": 2}
    assert (report["split"]["train"], report["split"]["held_out"]) == (30, 6)


def _tokenizer(tmp_path: Path) -> Any:
    return tiny_tokenizer(tmp_path / "tokenizer")


def _run(tmp_path: Path, path: Path, **settings: Any) -> Run:
    workspace = Workspace.open(tmp_path / "workspace")
    kept = keep(workspace, path)
    recipe = make_recipe({"data.path": str(path), "data.max_length": 128, **settings})
    return create_run(workspace, recipe, {"file": str(kept.path), "sha256": kept.sha256, "name": kept.name})


def test_a_run_trains_on_one_and_measures_by_the_other(tmp_path: Path) -> None:
    rows = chat_rows(40)
    files = {"data/train/0.jsonl": rows[:30], "data/valid/0.jsonl": rows[30:36], "data/test/0.jsonl": rows[36:]}
    run = _run(tmp_path, _folder(tmp_path / "mine", files))
    prepared = prepare_rows(run, run.recipe(), _tokenizer(tmp_path))
    assert (len(prepared.train), len(prepared.held_out)) == (30, 6)
    # In the order of names: test 1 to 4, train 5 to 34, valid 35 to 40.
    assert {each.row for each in prepared.train} == set(range(5, 35))
    assert {each.row for each in prepared.held_out} == set(range(35, 41))
    assert content_hash(run.dataset_file()) == run.dataset()["sha256"]


def test_the_measured_rows_stay_within_their_limit_and_none_is_trained_on() -> None:
    train, held = split_rows(range(100), [row >= 60 for row in range(100)], DataSettings(eval_max_rows=10), seed=0)
    assert train == list(range(60))
    assert len(held) == 10 and min(held) >= 60


def test_a_run_from_before_goes_on_with_the_rows_that_it_had(tmp_path: Path) -> None:
    run = _run(tmp_path, _folder(tmp_path / "mine", {"train.jsonl": chat_rows(20), "test.jsonl": chat_rows(26)[20:]}))
    assert len(prepare_rows(run, run.recipe(), _tokenizer(tmp_path)).train) == 18
    file = run.dir / "recipe.yaml"
    values = yaml.safe_load(file.read_text())
    del values["data"]["named_splits"]  # as Nibble wrote it before it knew of splits
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    before = prepare_rows(run, run.recipe(), _tokenizer(tmp_path))
    assert len(before.train) + len(before.held_out) == 26


def test_rows_that_an_update_renders_otherwise_are_told_when_a_run_goes_on(tmp_path: Path) -> None:
    run = _run(tmp_path, _folder(tmp_path / "mine", {"train.jsonl": chat_rows(20)}))
    for _ in range(2):
        prepare_rows(run, run.recipe(), _tokenizer(tmp_path))
    assert "otherwise" not in (run.dir / "events.jsonl").read_text("utf-8")
    tokenizer = _tokenizer(tmp_path)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "model\\n")
    prepare_rows(run, run.recipe(), tokenizer)
    assert "differently from when this run began" in (run.dir / "events.jsonl").read_text("utf-8")


def test_cleaned_data_keeps_what_is_held_out_apart(tmp_path: Path) -> None:
    path = _folder(tmp_path / "x", {"train.jsonl": _rows("Train", 3), "valid.jsonl": _rows("Valid", 2)})
    save_cleaned(load(path, DataSettings()), set(), tmp_path / "cleaned.jsonl")
    again = load(tmp_path / "cleaned.jsonl", DataSettings())
    assert again.splits == {"train": 3, "held_out": 2, "left_alone": 0}
