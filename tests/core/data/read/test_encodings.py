"""Old encodings are told by how words are spelt; where that is not sure they are asked for, with the words shown."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest

from core.data.read import EncodingUnsure, encodings_offered, open_source
from core.data.read.letters import guesses
from core.errors import DataError, RecipeError
from core.recipe import make_recipe
from core.text.encodings import ENCODINGS, is_encoding
from tests.core.data.read.tongues import TONGUES, cases


def _write(folder: Path, content: bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _cases() -> list[tuple[str, str, str, str, bytes]]:
    found = []
    for language, encoding, length, text in cases():
        try:
            found.append((language, encoding, length, text, text.encode(encoding)))
        except UnicodeEncodeError:
            continue  # typographic quotes, which that encoding does not have
    return found


@pytest.mark.parametrize("nth", [6, pytest.param(1, marks=pytest.mark.full)])
def test_of_three_hundred_texts_none_is_read_wrong_in_silence_and_few_are_asked_about(nth: int) -> None:
    every = _cases()[::nth]
    asked: list[str] = []
    for language, encoding, length, text, raw in every:
        found = guesses(raw)
        case = f"{language} in {encoding}, {length}: {found.all[0]}"
        assert raw.decode(found.all[0].codec) == text, f"the likeliest is not the right one: {case}"
        if not found.sure:
            asked.append(case)
    assert len(every) > 300 / nth
    assert len(asked) <= 0.03 * len(every), asked
    assert not [case for case in asked if "long" in case]


@pytest.mark.parametrize(
    ("language", "encoding", "name"),
    [
        ("Czech", "cp1250", "Windows-1250 (Central Europe)"),
        ("Hungarian", "cp1250", "Windows-1250 (Central Europe)"),
        ("Romanian", "cp1250", "Windows-1250 (Central Europe)"),
        ("Polish", "cp852", "DOS 852 (Central Europe)"),
        ("Lithuanian", "cp1257", "Windows-1257 (Baltic)"),
        ("Turkish", "cp1254", "Windows-1254 (Turkish)"),
        ("Ukrainian", "cp1251", "Windows-1251 (Cyrillic)"),
        ("Russian", "koi8_r", "KOI8-R (Russian)"),
        ("Russian", "cp866", "DOS 866 (Cyrillic)"),
        ("Greek", "cp1253", "Windows-1253 (Greek)"),
        ("Hebrew", "cp1255", "Windows-1255 (Hebrew)"),
        ("Arabic", "cp1256", "Windows-1256 (Arabic)"),
        ("English", "mac_roman", "Mac Roman (Western Europe)"),
        ("Traditional Chinese", "big5", "Big5 (traditional Chinese)"),
        ("Japanese", "euc_jp", "EUC-JP (Japanese)"),
        ("Japanese", "iso2022_jp", "ISO-2022-JP (Japanese)"),
        ("Chinese", "utf-16-be", "UTF-16 (big-endian)"),
        ("Chinese", "utf-16-le", "UTF-16"),
        ("Russian", "utf-32-le", "UTF-32"),
        ("Korean", "utf-32-be", "UTF-32 (big-endian)"),
        ("Czech", "utf-8", "UTF-8"),
    ],
)
def test_a_file_is_read_and_its_encoding_said(language: str, encoding: str, name: str, tmp_path: Path) -> None:
    text = next(text for tongue, _, length, text in cases() if (tongue, length) == (language, "long"))
    source = open_source(_write(tmp_path, text.encode(encoding)))
    assert list(source.rows()) == list(csv.DictReader(io.StringIO(text)))
    assert source.files[0].encoding == name


def test_the_words_are_shown_as_they_were_read(tmp_path: Path) -> None:
    path = _write(tmp_path, "prompt;completion\nKočka sedí;na střeše\n".encode("cp1250"))
    source = open_source(path)
    list(source.rows())
    message = next(finding.message for finding in source.findings() if finding.code == "encoding-guessed")
    assert "Windows-1250 (Central Europe)" in message
    assert "“Kočka”, “sedí”, “střeše”" in message


def test_what_is_not_sure_is_asked_with_the_words_in_each(tmp_path: Path) -> None:
    path = _write(tmp_path, "prompt,completion\nGdzie?,sęk\n".encode("cp1250"))
    with pytest.raises(EncodingUnsure) as refused:
        open_source(path)
    said = str(refused.value)
    assert "rows.csv is not UTF-8 at byte" in said and "Set the encoding (data.encoding)" in said
    assert "windows-1250 reads “sęk”; " in said and "more. Set" in said
    offered = encodings_offered(path)
    assert offered is not None
    assert {"windows-1250", "windows-1252", "windows-1251"} <= {each.name for each in offered.all}
    assert list(open_source(path, "windows-1250").rows()) == [{"prompt": "Gdzie?", "completion": "sęk"}]


def test_a_short_file_is_read_as_those_beside_it(tmp_path: Path) -> None:
    for number, sentence in enumerate(TONGUES["Polish"][1]):
        _write(tmp_path, f"prompt,completion\n{sentence.replace(',', '')},Tak\n".encode("cp1250"), f"{number}.csv")
    _write(tmp_path, "prompt,completion\nGdzie?,sęk\n".encode("cp1250"), "short.csv")
    rows = list(open_source(tmp_path).rows())
    assert rows[-1] == {"prompt": "Gdzie?", "completion": "sęk"}


def test_valid_utf8_is_offered_nothing_else(tmp_path: Path) -> None:
    assert encodings_offered(_write(tmp_path, "prompt,completion\nKočka,měsíc\n".encode())) is None


@pytest.mark.parametrize("encoding", ["mac-iceland", "cp1125", "iso8859_14", "cp037", "hp-roman8", "johab"])
def test_any_encoding_of_python_can_be_chosen_by_hand(encoding: str, tmp_path: Path) -> None:
    letters = {"cp1125": "Київ", "iso8859_14": "tŷ", "johab": "한국"}.get(encoding, "é")
    path = _write(tmp_path, f"prompt,completion\nHi,{letters}\nHo,{letters}\n".encode(encoding.replace("mac-", "mac_")))
    recipe = make_recipe({"data.encoding": encoding})
    assert [row["completion"] for row in open_source(path, recipe.data.encoding).rows()] == [letters, letters]


@pytest.mark.parametrize("encoding", ["klingon", "idna", "base64", "", "../x"])
def test_what_is_no_encoding_is_refused(encoding: str) -> None:
    assert not is_encoding(encoding)
    with pytest.raises(RecipeError, match="no text encoding called"):
        make_recipe({"data.encoding": encoding})


def test_the_recipe_takes_what_can_be_recognised() -> None:
    for each in ENCODINGS:
        assert make_recipe({"data.encoding": each.name}).data.encoding == each.name
        "a".encode(each.codec)


@pytest.mark.parametrize(
    "content",
    [
        b"a" * 3_000_000 + b"\xe9" + b"b" * 1_000_000,
        b"\xe9\n" * 2_000_000,
        ("слово " * 700_000).encode("cp1251"),
        bytes(range(0x80, 0x100)) * 30_000,
        bytes([0xA1, 0xE9]) * 2_000_000,
        b"\x1b$B" * 1_000_000,
    ],
)
def test_a_hostile_file_takes_no_more_than_seconds(content: bytes, tmp_path: Path) -> None:
    path = _write(tmp_path, content, "rows.txt")
    started = time.monotonic()
    try:
        open_source(path)
    except DataError as error:
        assert "rows.txt" in str(error)
    assert time.monotonic() - started < 10
