"""The front door: real files become conversations, on disk where they are many, and nothing is lost on the way."""

import errno
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Conversation
from core.data.dataset import load, size_of
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.recipe import DataSettings
from core.workspace import PRESETS
from tests.core.data.read.odd_files import ODD_FILES, Odd

ASK = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello!"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("name", "format", "rows"),
    [
        ("pirate.jsonl", "messages", 400),
        ("oakhollow.json", "alpaca", 300),
        ("cards.csv", "prompt-completion", 300),
        ("toyshop.json", "sharegpt", 240),
    ],
)
def test_every_sample_is_usable_to_the_last_row(name: str, format: str, rows: int) -> None:
    found = load(PRESETS / "datasets" / name, DataSettings())
    assert (found.format, found.rows, len(found.usable), found.dropped) == (format, rows, rows, [])
    assert found.findings == []


def test_what_is_known_of_the_file_comes_along(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"prompt": "Hi", "completion": "Hello!"}] * 3)
    seen: list[int] = []
    found = load(file, DataSettings(), seen.append)
    assert (found.name, found.bytes, size_of(file)) == ("a.jsonl", file.stat().st_size, file.stat().st_size)
    assert seen[-1] == found.bytes
    assert [(info.kind, info.rows) for info in found.files] == [("jsonl", 3)]
    assert found.columns[0] == {"name": "prompt", "example": "Hi"}


def test_a_broken_line_is_dropped_and_the_rest_is_used(tmp_path: Path) -> None:
    good = {"messages": [ASK, REPLY]}
    found = load(write(tmp_path / "a.jsonl", [good, '{"messages": \n', good]), DataSettings())
    assert [each.row for each in found.usable] == [1, 3]
    assert found.dropped[0].row == 2 and "line 2" in found.dropped[0].reason


def test_a_file_of_broken_lines_is_refused_with_the_first(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ['{"prompt": "Hi", }\n'] * 3)
    with pytest.raises(DataError, match="a.jsonl.*line 1"):
        load(file, DataSettings())


def test_a_layout_is_found_behind_many_broken_lines(tmp_path: Path) -> None:
    rows = [{"a": 1}, *['{"prompt": "Hi", }\n'] * 1200, *[{"prompt": "Hi", "completion": "Hello!"}] * 1200]
    found = load(write(tmp_path / "a.jsonl", rows), DataSettings())
    assert (found.format, found.rows, len(found.usable), len(found.dropped)) == ("prompt-completion", 2401, 1200, 1201)


@pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: f"{odd.name}: {odd.kind}")
def test_every_row_of_an_odd_file_is_usable_or_dropped(odd: Odd, tmp_path: Path) -> None:
    path = odd.write(tmp_path)
    lost = odd.unreadable if odd.dropped is None else odd.dropped
    if lost == odd.rows:  # none of none, where the file itself is refused
        with pytest.raises(DataError):
            load(path, DataSettings())
        return
    found = load(path, DataSettings())
    rows = sorted([*(each.row for each in found.usable), *(each.row for each in found.dropped)])
    assert rows == list(range(1, found.rows + 1))
    assert (found.rows, len(found.dropped)) == (odd.rows, lost)
    assert found.rows == sum(file.rows for file in found.files)


def test_the_fillers_of_a_parquet_file_are_not_taken_for_values(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    def call(arguments: dict[str, int]) -> list[dict[str, Any]]:
        function = {"name": "f", "arguments": arguments}
        return [ASK, {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}, REPLY]

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": call({"a": 1})}, {"messages": call({"b": 2})}]), file)
    found = load(file, DataSettings()).usable
    assert [each.messages[1]["tool_calls"][0]["function"]["arguments"] for each in found] == [{"a": 1}, {"b": 2}]
    assert found[0].messages[0] == ASK


def conversation(number: int) -> Conversation:
    return Conversation(number, [ASK, REPLY | {"content": f"Hello {number} é", "weight": 0.5}])


@pytest.mark.parametrize("memory_bytes", [0, 2000, 2**26])
def test_conversations_come_back_as_they_were_put_in(memory_bytes: int) -> None:
    put = [conversation(number) for number in range(1, 500)]
    put += [Conversation(600, [], text="x" * 2_000_000), Conversation(601, [ASK, REPLY], tools=[{"type": "function"}])]
    spilled = SpilledConversations(memory_bytes)
    for each in put:
        spilled.append(each)
    spilled.seal()
    assert len(spilled) == len(put) == 501
    assert list(spilled) == put
    assert [spilled[0], spilled[-1], spilled[499]] == [put[0], put[-1], put[499]]
    assert spilled[490:] == put[490:] and spilled[5:2] == [] and spilled[::100] == put[::100]
    with pytest.raises(IndexError):
        spilled[501]


def test_no_conversations_are_none() -> None:
    spilled = SpilledConversations(0)
    spilled.seal()
    assert (len(spilled), list(spilled), spilled[:]) == (0, [], [])


def test_conversations_on_disk_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spilled = SpilledConversations(0)
    spilled.append(conversation(1))
    spilled.seal()
    assert spilled[0] == conversation(1)
    del spilled
    assert list(tmp_path.iterdir()) == []


class FullDisk(io.BytesIO):
    """A file on a disk that has no room for a megabyte."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 1_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: FullDisk())
    spilled = SpilledConversations(0)
    with pytest.raises(DataError, match="No space left.*Free some space there"):
        for number in range(3):
            spilled.append(Conversation(number, [], text="x" * 1_500_000))


def test_conversations_can_be_read_by_several_threads_at_once() -> None:
    spilled = SpilledConversations(0)
    for number in range(3000):
        spilled.append(conversation(number))
    spilled.seal()
    with ThreadPoolExecutor(4) as pool:
        looked = [pool.submit(lambda: [spilled[at].row for at in range(0, 3000, 7)]) for _ in range(3)]
        passed = pool.submit(lambda: [each.row for each in spilled])
    assert all(each.result() == list(range(0, 3000, 7)) for each in looked)
    assert passed.result() == list(range(3000))


def test_half_a_character_is_refused_and_changes_nothing() -> None:
    spilled = SpilledConversations()
    with pytest.raises(UnicodeEncodeError):
        spilled.append(Conversation(1, [ASK, REPLY | {"content": "\ud83d"}]))
    assert len(spilled) == 0


def test_the_evidence_says_where_it_looked_only_at_the_first_rows(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "completion": "Hello!"}
    for count, said in ((1000, "in 1,000 of 1,000 rows"), (1001, "in 1,000 of the first 1,000 rows")):
        file = tmp_path / f"{count}.jsonl"
        file.write_text((json.dumps(row) + "\n") * count)
        assert load(file, DataSettings()).evidence.endswith(said)
