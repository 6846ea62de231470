"""Random rows, however odd, never break the sum: each is usable or dropped, and what is usable can be learned."""

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.conversation import Conversation, Conversations, Unreadable
from core.data.formats.convert import convert
from core.data.formats.recognise import recognise_layout
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.recipe import DataSettings

KEYS = re.findall(
    r"\w+",
    """
    role content from value speaker text user human assistant messages conversations conversation system tools
    functions tool_calls function function_call name arguments parameters reasoning_content weight loss_weight train
    masked instruction input output response context category prompt completion question answer answers history
    chosen rejected label kto_tag images image audio target type thinking tool_call_id
    """,
)
ROLES = ["user", "human", "gpt", "assistant", "system", "tool", "function_call", "observation", "Developer", "alien"]
TEXTS = ["", " ", "Hi", "a\0b", "\ud83d", "[]", "{}", '[{"role": "user", "content": "Hi"}]', '{"name": "f"}',
         "### Human: a### Assistant: b", "[INST] a [/INST] b", "<|im_start|>user\na<|im_end|>", "nan", "1e999",
         "\n\nHuman: a\n\nAssistant: b", "true", "0"]  # fmt: skip
texts = st.sampled_from(ROLES) | st.sampled_from(TEXTS) | st.text(max_size=8)
simple = st.none() | st.booleans() | st.integers() | st.floats() | texts
keys = st.sampled_from(KEYS) | st.text(max_size=4)
anything = st.recursive(
    simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
parts = st.fixed_dictionaries({"type": st.sampled_from(["text", "image", "thinking", "x"])}, optional={"text": simple})


def mostly(good: Any, odd: Any = anything) -> Any:
    """Nine times of ten what a file should hold: rows that are odd in every way at once say little."""
    return st.integers(0, 9).flatmap(lambda number: good if number else odd)


contents = mostly(texts, st.lists(parts, max_size=2) | anything)
roles = mostly(st.sampled_from(ROLES))
weights = mostly(st.sampled_from([0, 1, 0.5, True, None]))
calls = mostly(st.just([{"name": "f", "arguments": '{"a": 1}'}]))
message = st.fixed_dictionaries(
    {"role": roles, "content": contents},
    optional={"weight": weights, "train": weights, "tool_calls": calls, "thinking": contents, "name": contents},
)
said = st.fixed_dictionaries({"from": roles, "value": contents}, optional={"loss_weight": weights})
pair = st.fixed_dictionaries({"input": contents, "output": contents}, optional={"system": contents})
turns = mostly(message | said | pair)
talks = mostly(st.lists(turns, min_size=1, max_size=5))
labels = mostly(st.booleans())
history = mostly(st.lists(st.lists(contents, min_size=2, max_size=2), max_size=2))
LAYOUTS = {
    "messages": ({"messages": talks}, {}),
    "sharegpt": ({"conversations": talks}, {}),
    "alpaca": ({"instruction": contents, "output": contents}, {"input": contents, "history": history}),
    "dolly": ({"instruction": contents, "context": contents, "response": contents}, {}),
    "prompt-completion": ({"prompt": contents | talks, "completion": contents | talks}, {"context": contents}),
    "question-answer": ({"question": contents, "answers": contents | st.lists(contents)}, {"context": contents}),
    "preference": ({"prompt": contents | talks, "chosen": contents | talks, "rejected": contents | talks}, {}),
    "kto": ({"prompt": contents, "completion": contents, "label": labels}, {}),
    "guanaco": ({"text": contents}, {}),
    "text": ({"text": contents}, {}),
    "mapping": ({"prompt": contents | talks, "completion": contents | talks}, {}),
}
EXTRAS = {"system": contents, "tools": calls, "weight": weights, "images": st.just([]) | st.just(["a.png"])}
GOOD = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
    "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}],
    **dict.fromkeys(("instruction", "context", "prompt", "question"), "Hi"),
    **dict.fromkeys(("output", "response", "completion", "answers", "chosen", "rejected"), "Hello!"),
    "label": True,
}
TEXT = {"guanaco": "### Human: Hi### Assistant: Hello!", "text": "Once."}


@st.composite
def files(draw: Any) -> tuple[list[Any], str]:
    """The rows of a file, the first of them good, and their layout."""
    name = draw(st.sampled_from(list(LAYOUTS)))
    needed, possible = LAYOUTS[name]
    row = mostly(st.fixed_dictionaries(needed, optional=possible | EXTRAS), st.dictionaries(keys, anything, max_size=6))
    rows = draw(st.lists(mostly(row, st.builds(Unreadable, st.just("line 1: broken"))), max_size=6))
    return [{key: GOOD.get(key, TEXT.get(name)) for key in needed}, *rows], name


def _can_be_learned(found: Conversation) -> bool:
    if found.text is not None:
        return bool(found.text.strip()) and found.messages == []
    last = found.messages[-1]
    says = last["content"].strip() or last.get("tool_calls")
    return last["role"] == "assistant" and bool(says) and last.get("weight", 1.0) > 0


def _is_well_formed(found: Conversation) -> bool:
    return all(
        message["role"] in ("system", "user", "assistant", "tool")
        and isinstance(message["content"], str)
        and ("weight" not in message or (message["role"] == "assistant" and 0.0 <= message["weight"] < 1.0))
        and isinstance(message.get("reasoning_content", ""), str)
        and all(isinstance(call["function"]["arguments"], dict) for call in message.get("tool_calls", []))
        for message in found.messages
    )


def _converted(rows: list[Any], chosen: DataSettings) -> Conversations:
    readable = [row for row in rows if not isinstance(row, Unreadable)]
    return convert(rows, recognise_layout(readable, chosen, "a"), chosen, "a", SpilledConversations(memory_bytes=100))


@settings(max_examples=300, deadline=None)
@given(files(), st.sampled_from(["keep", "into_question", "leave_out"]))
def test_usable_and_dropped_are_all_rows(file: tuple[list[Any], str], system: str) -> None:
    rows, name = file
    mapping = {"prompt": "prompt", "reply": "completion"}
    found = _converted(rows, DataSettings.model_validate({"format": name, "mapping": mapping, "system": system}))
    usable, dropped = [each.row for each in found.usable], [each.row for each in found.dropped]
    assert found.rows == len(rows) and usable[0] == 1
    assert sorted(usable + dropped) == list(range(1, len(rows) + 1))
    assert usable == sorted(usable) and dropped == sorted(dropped)
    assert all(_can_be_learned(each) and _is_well_formed(each) for each in found.usable)
    assert all(drop.reason for drop in found.dropped)
    assert repr(list(found.usable)) == repr([found.usable[index] for index in range(len(usable))])


ONE_GOOD = {"prompt": "Hi", "completion": "Hello!"}


def test_any_rows_are_recognised_or_refused_in_a_sentence() -> None:
    """Alone few of them are recognised; beside good ones most are."""
    recognised = []

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.dictionaries(keys, contents | talks, max_size=6), min_size=1, max_size=4), st.integers(0, 4))
    def tried(drawn: list[Any], good: int) -> None:
        rows = [ONE_GOOD] * good + drawn
        try:
            found = _converted(rows, DataSettings())
        except DataError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert len(found.usable) + len(found.dropped) == found.rows == len(rows)
            recognised.append(found.rows)

    tried()
    assert len(recognised) > 10


def test_a_call_of_nothing_is_no_reply() -> None:
    """Found by the tests above."""
    empty = {"prompt": [], "completion": [{"role": "user", "content": "x"}, {"role": "function_call", "content": []}]}
    found = _converted([ONE_GOOD, empty], DataSettings(format="prompt-completion"))
    assert [(each.row, each.reason) for each in found.dropped] == [(2, "a tool call is empty")]
