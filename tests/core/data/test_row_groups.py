"""Rows that are parts of a conversation are put together, a table in one row is taken apart, and that is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.check.raw import RawRows
from core.data.dataset import Loaded, load
from core.errors import DataError
from core.recipe import DataSettings

ASK, REPLY = {"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A ball is red."}


def loaded(folder: Path, rows: list[Any], **settings: Any) -> Loaded:
    file = folder / "file.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load(file, DataSettings(**settings))


def turn(conversation: Any, role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"conversation_id": conversation, "role": role, "content": text, **more}


def test_one_turn_a_row_becomes_a_conversation_a_row(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text(
        "conversation_id,role,content\n0,user,What is red?\n0,assistant,A ball is red.\n1,user,Hi\n1,assistant,Hello!\n"
    )
    found = load(tmp_path / "file.csv", DataSettings())
    assert [each.messages for each in found.usable][0] == [ASK, REPLY]
    assert (found.format, found.rows, len(found.usable)) == ("messages", 2, 2)
    (said,) = found.findings
    assert (said.code, said.severity) == ("turns-gathered", "note")
    assert "4 were grouped into 2 conversations by `conversation_id`" in said.message


def test_turns_come_into_their_order_and_what_else_they_hold_is_said(tmp_path: Path) -> None:
    rows = [turn("a", "assistant", "A ball is red.", turn=1, note="He looked into the box first."),
            turn("a", "user", "What is red?", turn=0), *[turn("b", "user", "Hi", turn=0)],
            turn("b", "assistant", "Hello!", turn=1)]  # fmt: skip
    found = loaded(tmp_path, rows)
    assert found.usable[0].messages == [ASK, REPLY]
    assert [each.code for each in found.findings] == ["turns-gathered", "unused-text"]
    assert "`messages[].note`" in found.findings[1].message


def test_a_conversation_that_goes_on_elsewhere_is_dropped_with_that_reason(tmp_path: Path) -> None:
    rows = [turn(1, "user", "What is red?"), turn(1, "assistant", "A ball is red."), turn(2, "user", "Hi"),
            turn(2, "assistant", "Hello!"), turn(1, "user", "And?"), turn("", "user", "Who?")]  # fmt: skip
    found = loaded(tmp_path, rows)
    assert [each.row for each in found.usable] == [1, 2]
    assert [drop.reason for drop in found.dropped] == [
        "the conversation 1 continues after others; sort the file by 'conversation_id'",
        "its 'conversation_id' is empty, so its conversation is unknown",
    ]


def test_the_row_in_the_file_is_shown_as_it_is_counted(tmp_path: Path) -> None:
    loaded(tmp_path, [turn(1, *("user", "Hi")), turn(1, "assistant", "Hello!"), turn(2, "user", "What is red?"),
                      turn(2, "assistant", "A ball is red.")])  # fmt: skip
    assert "A ball is red." in RawRows(tmp_path / "file.jsonl", DataSettings()).show(2)


def test_rows_are_left_alone_where_the_person_says_how_they_are_laid_out(tmp_path: Path) -> None:
    found = loaded(tmp_path, [turn(1, "user", "Hi there"), turn(1, "assistant", "Hello!")], format="text")
    assert [each.text for each in found.usable] == ["Hi there", "Hello!"]
    assert "`role`" in found.findings[0].message


def test_a_turn_a_row_without_a_conversation_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="such as conversation: …, role: role, content: content"):
        loaded(tmp_path, [ASK, REPLY, ASK, REPLY])


def node(name: str, parent: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "message_tree_id": "t", "role": role, "text": text, **more}


def test_the_columns_of_a_turn_can_be_named_by_hand(tmp_path: Path) -> None:
    rows = [{"ticket": 7, "who": "Ann", "said": "What is red?", "place": "shop"},
            {"ticket": 7, "who": "Bo", "said": "A ball is red."}]  # fmt: skip
    mapping = {"conversation": "ticket", "role": "who", "content": "said", "roles": {"Ann": "user", "Bo": "assistant"}}
    found = loaded(tmp_path, rows, format="mapping", mapping=mapping)
    assert (found.rows, found.usable[0].messages) == (1, [ASK, REPLY])
    assert [each.code for each in found.findings] == ["turns-gathered", "unused-detail"]
    for wrong, said in (({"role": None}, "not both role and content"), ({"conversation": "x"}, "no column 'x'")):
        with pytest.raises(DataError, match=said):
            loaded(tmp_path, rows, format="mapping", mapping=mapping | wrong)


NODES = [
    node("1", None, "prompter", "What is red?"),
    node("2", "1", "assistant", "Soup, I think.", rank=1),
    node("3", "1", "assistant", "A ball is red.", rank=0, lang="en"),
    node("4", "3", "prompter", "Never mind."),
]
BRANCHES = ("In 1 row, a turn has several replies under `{}`: one is learned, the others are ignored.",)


def test_openassistants_messages_become_the_best_way_through_their_tree(tmp_path: Path) -> None:
    found = loaded(tmp_path, NODES)
    assert found.usable[0].messages == [ASK, REPLY]
    messages = {each.code: each.message for each in found.findings}
    assert messages["branch-left-out"] == BRANCHES[0].format("mapping")
    assert "`mapping[].message.lang`" in messages["unused-detail"]


def test_its_trees_are_read_in_the_same_way(tmp_path: Path) -> None:
    worse, better = ({key: value for key, value in each.items() if key != "parent_id"} for each in NODES[1:3])
    tree = {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "What is red?",
            "replies": [worse | {"replies": []}, better | {"replies": []}]}}  # fmt: skip
    found = loaded(tmp_path, [tree])
    assert found.usable[0].messages == [ASK, REPLY]
    assert BRANCHES[0].format("prompt") in [each.message for each in found.findings]


@pytest.mark.parametrize("parents", [{"1": "4"}, {"1": "1"}, {"2": None, "3": None}])
def test_messages_that_are_no_tree_are_read_to_an_end(tmp_path: Path, parents: dict[str, Any]) -> None:
    rows = [each | {"parent_id": parents.get(each["message_id"], each["parent_id"])} for each in NODES]
    found = loaded(tmp_path, [*rows, *[{**each, "message_tree_id": "u"} for each in NODES]])
    assert found.rows == 2 and found.usable[-1].messages == [ASK, REPLY]


def test_a_table_as_pandas_writes_it_is_taken_apart(tmp_path: Path) -> None:
    table = {"prompt": {"0": "What is red?", "1": "Hi"}, "completion": {"0": "A ball is red.", "1": "Hello!"}}
    (tmp_path / "file.json").write_text(json.dumps(table))
    found = load(tmp_path / "file.json", DataSettings())
    assert found.usable[0].messages == [ASK, REPLY]
    assert (found.format, found.rows, found.findings) == ("prompt-completion", 2, [])


def _step(name: str, parent: str | None, role: str, content: Any, children: list[str]) -> dict[str, Any]:
    message = {"id": name, "author": {"role": role}, "content": content, "weight": 1.0, "recipient": "all"}
    return {"id": name, "message": message, "parent": parent, "children": children}


def test_chatgpts_export_is_read_along_the_way_that_was_last_shown(tmp_path: Path) -> None:
    said = {"content_type": "text", "parts": ["What is red?"]}
    thought = {"content_type": "thoughts", "thoughts": [{"summary": "Looking", "content": "Hm."}]}
    nodes = {
        "root": {"id": "root", "message": None, "parent": None, "children": ["s"]},
        "s": _step("s", "root", "system", {"content_type": "text", "parts": [""]}, ["u"]),
        "u": _step("u", "s", "user", said, ["old", "t"]),
        "old": _step("old", "u", "assistant", {"content_type": "text", "parts": ["No idea."]}, []),
        "t": _step("t", "u", "assistant", thought, ["new"]),
        "new": _step("new", "t", "assistant", {"content_type": "text", "parts": ["A ball is red."]}, []),
    }
    found = loaded(tmp_path, [{"title": "Red", "mapping": nodes, "current_node": "new"}])
    assert found.usable[0].messages == [ASK, REPLY | {"reasoning_content": "Hm.\n"}]
    messages = {each.code: each.message for each in found.findings}
    assert messages["branch-left-out"] == BRANCHES[0].format("mapping")
    assert "`title`" in messages["unused-detail"]


def test_open_webuis_export_is_read_with_its_reasoning(tmp_path: Path) -> None:
    block = '<details type="reasoning" done="true">\n<summary>Thought for 3 seconds</summary>\n> Hm.\n</details>\n'
    turns = [ASK | {"id": "1"}, {"id": "2", "role": "assistant", "content": f"{block}A ball is red."}]
    other = {"id": "3", "role": "assistant", "content": "No idea."}
    history = {"messages": {each["id"]: each for each in [*turns, other]}, "currentId": "2"}
    found = loaded(tmp_path, [{"id": "o", "chat": {"title": "Red", "history": history, "messages": turns}}])
    assert found.usable[0].messages == [ASK, REPLY | {"reasoning_content": "Hm."}]
    messages = {each.code: each.message for each in found.findings}
    assert messages["branch-left-out"] == BRANCHES[0].format("chat.history")
    assert "`<details>`" in messages["reasoning-unfolded"]
