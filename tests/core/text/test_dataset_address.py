"""What people paste as a dataset is taken for what it means: quotes, file:// and the Hub's own addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.huggingface import looks_like_hub_id
from core.errors import RecipeError
from core.launch.typed_input import typed_dataset
from core.recipe import make_recipe
from core.untrusted.paths import Reach
from core.workspace import Workspace

HUB = "https://huggingface.co"  # what people paste


def _path(given: str) -> str:
    return make_recipe({"data.path": given}).data.path


@pytest.mark.parametrize(
    "given", ['"{}"', "'{}'", "“{}”", " {} ", "<{}>", "file://{}", "file://localhost{}", '"file://{}"']
)
def test_a_quoted_path_and_a_files_address_are_the_file(given: str, tmp_path: Path) -> None:
    file = tmp_path / "my rows.csv"
    file.write_text("prompt,completion\n")
    assert _path(given.format(file)) == str(file)


def test_an_address_writes_spaces_and_letters_its_own_way() -> None:
    assert _path("file:///home/ann/a%20b%C3%A9.csv") == "/home/ann/a bé.csv"
    assert _path('"C:\\Users\\Ann\\a b.csv"') == "C:\\Users\\Ann\\a b.csv"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (f"{HUB}/datasets/HuggingFaceH4/no_robots", "hf:HuggingFaceH4/no_robots"),
        (f"{HUB}/datasets/user/name/", "hf:user/name"),
        (f"{HUB}/datasets/user/name/tree/main/data", "hf:user/name"),
        (f"{HUB}/datasets/user/name/viewer/default/train?row=3", "hf:user/name"),
        (f"{HUB}/datasets/user/name/blob/main/data/x.jsonl", "hf:user/name/data/x.jsonl"),
        (f"{HUB}/datasets/user/name/resolve/main/x.jsonl?download=true", "hf:user/name/x.jsonl"),
        ("huggingface.co/datasets/user/name", "hf:user/name"),
        ("datasets/user/name", "hf:user/name"),
        ("hf://datasets/user/name/data/x.parquet", "hf:user/name/data/x.parquet"),
        ("user/name", "user/name"),
        ("pirate", "pirate"),
    ],
)
def test_an_address_of_the_hub_is_the_dataset(given: str, meant: str, tmp_path: Path) -> None:
    assert _path(given) == meant
    assert looks_like_hub_id(meant) == ("/" in meant)
    assert typed_dataset(Reach.of(Workspace.open(tmp_path)), meant) == meant


def test_a_folder_of_that_name_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets" / "user" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert _path("datasets/user/name") == "datasets/user/name"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("https://example.org/rows.csv", "is a web address. Download the file"),
        (f"{HUB}/user/model", "is a Hugging Face page, but not a dataset"),
    ],
)
def test_another_address_is_refused_in_a_sentence(given: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_recipe({"data.path": given})


def test_a_file_of_the_hub_leads_nowhere_else(tmp_path: Path) -> None:
    assert not looks_like_hub_id("hf:user/name/../../etc/passwd")
    assert not looks_like_hub_id("hf:user/name/..")
