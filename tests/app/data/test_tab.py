"""The Data tab shows what the session knows, at each stage, and runs nothing that stands in the data."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.data import html as data_html
from app.data import layout as data_layout
from app.data import row_html
from app.data import wire as data_wire
from app.data.events import DataEvents
from app.data.lengths_chart import lengths_chart
from app.data.mapping import ROLES, guess, is_enough
from app.data.session import DataSession
from app.train.wire import TrainTab
from core.errors import NibbleError
from core.recipe import make_recipe
from core.settings import MappingSettings
from core.workspace import read_json
from tests.app.data.canned import HOSTILE, CannedHelper, finding, report, usable_row

WORKING = {"progress": 0.34, "error": None, "name": "my talks.jsonl"}
READING, COUNTING = {**WORKING, "stage": "reading"}, {**WORKING, "stage": "tokens"}


@pytest.fixture
def tab() -> data_layout.DataLayout:
    with gr.Blocks():
        return data_layout.DataLayout()


@pytest.fixture
def events(tab: data_layout.DataLayout, train_tab: TrainTab, context: Context) -> DataEvents:
    return DataEvents(tab, train_tab.form, context, DataSession(CannedHelper()))


def _tab(events: DataEvents) -> data_wire.DataTab:
    """The tab around these events."""
    tab = data_wire.DataTab(events.context)
    tab.layout, tab.session = events.layout, events.session
    return tab


@pytest.fixture
def given_here(tab: data_layout.DataLayout, given: dict[Any, Any]) -> dict[Any, Any]:
    """What stands on both tabs when nobody has touched them."""
    return {**given, **{component: component.value for component in tab.inputs()}}


def _wait(session: DataSession, stage: str = "done", with_row: bool = True) -> None:
    ends = time.monotonic() + 10
    while not (session.report["stage"] == stage and (session.shown or not with_row)):
        assert time.monotonic() < ends, session.report
        time.sleep(0.02)


def test_before_there_is_a_dataset_it_says_what_will_be_here() -> None:
    parts = data_html.parts({"stage": "idle", "progress": 0.0}, {})
    assert "No dataset yet" in parts["head"]
    assert 'data-act="sample" data-value="pirate"' in parts["head"]
    assert not parts["findings"] and not parts["lengths"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({**WORKING, "stage": "starting"}, "Starting…"),
        (READING, "Reading… 34 %"),
        (COUNTING, "Counting tokens… 34 %"),
        ({**WORKING, "stage": "failed", "error": "a.csv, line 3: too many cells."}, "a.csv, line 3: too many cells."),
    ],
)
def test_while_it_works_it_says_how_far_it_is(state: dict[str, Any], said: str) -> None:
    assert said in data_html.parts(state, {})["head"]


def test_before_any_token_is_counted_the_rows_are_shown_already() -> None:
    unknown = dict.fromkeys(
        ("tokens", "truncated", "lengths", "padding", "steps_per_epoch", "seconds_per_epoch", "split")
    )
    parts = data_html.parts(report(stage="tokens", progress=0.1, suggestions=[], **unknown), {})
    assert "77 of 80" in parts["head"] and "tokens in total" not in parts["head"]
    assert "will not stop" in parts["findings"]
    assert parts["lengths"] == ""


def test_every_figure_has_its_unit() -> None:
    head = data_html.head(report())
    for said in ("77 of 80", "31,000", "12,400", "40 % of all", "340", "900", "2,310", "longer than 512 tokens"):
        assert said in head
    for said in ("2.1 %", "31 % without packing", "5 steps", "about 1 min 35 s, as fast as the last run"):
        assert said in head


def test_figures_from_a_sample_say_so_with_their_interval() -> None:
    tokens = {**report()["tokens"], "exact": False, "sample": 50_000, "interval": {"total": [30_500, 31_500]}}
    head = data_html.head(report(tokens=tokens))
    assert "about 31,000" in head
    assert "from a sample of 50,000 rows, ± 500" in head


def test_the_worst_finding_comes_first_and_left_out_rows_have_their_reason() -> None:
    html = data_html.findings(report(), {})
    places = [html.index(said) for said in ("will not stop", "an earlier row", "fewer than 3", "reply is empty")]
    assert places == sorted(places)
    assert 'data-act="row" data-value="30"' in html and "There is no reply." in html
    assert "Show more of the 12 rows" in html
    assert "Show more of the 12 rows" not in data_html.findings(report(), {"duplicate": list(range(11, 23))})


def test_a_thousand_different_reasons_do_not_fill_the_page() -> None:
    dropped = [{"row": row, "reason": f"line {row}: is not valid JSON"} for row in range(1, 1001)]
    html = data_html.findings(report(rows=5000, usable=3000, dropped=dropped), {})
    assert html.count("<details") == 103 and "and 900 more reasons" in html
    assert "1 row of the first 1,000" in html


def test_nothing_found_is_said_too() -> None:
    assert "No problems found" in data_html.findings(report(warnings=[], dropped=[]), {})
    assert "Still looking" in data_html.findings(report(warnings=[], dropped=[], stage="tokens"), {})


def test_the_suggestions_are_buttons_except_the_one_that_is_set() -> None:
    html = data_html.lengths(report())
    assert 'data-act="limit" data-value="1024">Use 1,024</button>' in html
    assert "<b>1,024 is set</b>" in data_html.lengths(report(max_length=1024))
    assert "each kept in one split" in html


def test_the_histogram_has_its_units_and_the_limit() -> None:
    svg = lengths_chart([0, 100, 200, 300], [5, 3, 1], 150, 290)
    assert "length (tokens)" in svg and ">conversations<" in svg
    assert 'aria-label="9 conversations by length in tokens; the limit is 150 tokens"' in svg
    assert svg.count("nb-b-cut") == 3  # the key, half of the bar in the middle, the last bar
    assert "nb-b-cut" not in lengths_chart([0, 100, 200, 300], [5, 3, 1], 295, 290)
    assert "is off the scale" in lengths_chart([0, 100, 200], [5, 3], 4096, 190)
    assert lengths_chart([], [], 512, 0) == lengths_chart([0, 10], [0], 512, 0) == ""
    assert lengths_chart([7, 7], [3], 512, 7)  # all of one length


def test_a_row_is_shown_as_chat_and_as_tokens() -> None:
    html = row_html.row(usable_row(12))
    assert "Row 12 of 80" in html and "5 tokens · 2 count in the loss" in html
    assert '<span class="nb-t" title="token 9">Hello.</span>' in html
    assert 'Hi<i class="nb-space"> </i><i class="nb-space"> </i>there<i class="nb-newline"></i>' in html
    assert "nb-said-assistant" in html


def test_a_row_that_is_left_out_says_why_and_stands_there_raw() -> None:
    html = row_html.row({"row": 7, "rows": 80, "reason": "its reply is empty", "raw": '{"a": "<b>"}'})
    assert "This row is not used: its reply is empty" in html
    assert "{&quot;a&quot;: &quot;&lt;b&gt;&quot;}" in html


def test_thoughts_tools_and_weights_are_seen() -> None:
    message = {"role": "assistant", "content": "Four.", "reasoning_content": "2 + 2", "weight": 0.5}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}
    html = row_html.chat({"messages": [message, call], "tools": [{"name": "add"}]})
    assert "2 + 2" in html and "weight 0.5" in html and "&quot;add&quot;" in html and "1 tools available" in html


def test_nothing_in_the_data_is_run() -> None:
    hostile = report(
        name=HOSTILE,
        evidence=HOSTILE,
        warnings=[finding(HOSTILE, "error", HOSTILE, [1], 900)],
        dropped=[{"row": 2, "reason": HOSTILE}],
        alternatives=[{"format": HOSTILE, "evidence": HOSTILE}],
        files=[{"name": HOSTILE, "kind": HOSTILE, "encoding": HOSTILE, "evidence": HOSTILE, "rows": 1}],
        suggestions=[{"max_length": 64, "cuts": 1, "share": 0.1, "because": HOSTILE}],
        seconds_per_epoch=None,
        seconds_basis=HOSTILE,
    )
    row = usable_row(1, HOSTILE)
    row["messages"][0] |= {"role": HOSTILE, "name": HOSTILE, "reasoning_content": HOSTILE, "tool_calls": HOSTILE}
    shown = [*data_html.parts(hostile, {}).values(), data_html.head({"stage": "failed", "error": HOSTILE})]
    shown += [row_html.row({**row, "findings": [HOSTILE]}), row_html.mapped(row)]
    shown += [row_html.row({"row": 1, "rows": 2, "reason": HOSTILE, "raw": HOSTILE})]
    shown += [row_html.row({**row, "messages": None, "text": HOSTILE})]
    for html in shown:
        assert "<script" not in html and "<img" not in html


def test_a_look_goes_through_its_stages_and_asks_for_the_row() -> None:
    canned = CannedHelper(READING, report(stage="tokens", progress=0.5), report())
    session = DataSession(canned)
    session.look(make_recipe({}))
    assert session.report["stage"] in ("starting", "reading")
    _wait(session)
    assert [asked["do"] for asked in canned.asked] == ["open", "state", "row", "state", "row"]
    session.look(make_recipe({}))  # the same again is on the session already
    assert session.report["stage"] == "done"


def test_the_last_report_stays_while_the_same_dataset_is_looked_at_anew() -> None:
    session = DataSession(CannedHelper())
    session.look(make_recipe({}))
    _wait(session)
    session._ask = CannedHelper(READING)
    session.look(make_recipe({"data.max_length": 64}))
    head = session.parts()["head"]
    assert "nb-work" in head and "77 of 80" in head
    assert "limit 64" in session.parts()["lengths"]  # which is drawn at once
    session.look(make_recipe({"data.path": "toyshop"}))
    assert "77 of 80" not in session.parts()["head"]
    session.forget()
    assert "No dataset yet" in session.parts()["head"]


class _SharedDesk(CannedHelper):
    """One that the Train tab's check puts another dataset on."""

    another = {"stage": "failed", "progress": 0.0, "error": "another.csv is empty."}

    def _check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.states = [self.another]
        return {"ok": False}

    def _open(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.states = [report()] if self.states == [self.another] else self.states
        return super()._open(arguments)


def test_what_the_train_tab_put_on_the_desk_meanwhile_is_not_taken_for_ones_own() -> None:
    canned = _SharedDesk(READING)
    session = DataSession(canned)
    session.look(make_recipe({}))
    _wait(session, "reading", with_row=False)
    session.beside("check", do="check")
    _wait(session)
    assert [asked["do"] for asked in canned.asked if asked["do"] != "state"] == ["open", "check", "open", "row"]


def test_a_dataset_given_up_for_another_does_not_come_back_over_it() -> None:
    released = threading.Event()

    class Slow(CannedHelper):
        """The helper that is still starting: what is asked of it first need not be heard first."""

        def _open(self, arguments: dict[str, Any]) -> dict[str, Any]:
            first = arguments["recipe"]["data"]["path"] == "pirate"
            if first:
                released.wait(1)
            self.states = [report(name="the first" if first else "the second")]
            if not first:
                self.states.insert(0, COUNTING)
                released.set()
            return super()._open(arguments)

    session = DataSession(Slow())
    session.look(make_recipe({"data.path": "pirate"}))
    session.look(make_recipe({"data.path": "toyshop"}))
    _wait(session)
    assert session.report["name"] == "the second"


def test_a_refusal_is_shown_where_the_figures_would_be() -> None:
    def refuse(op: str, **arguments: Any) -> dict[str, Any]:
        raise NibbleError(f"{HOSTILE} is empty.")

    session = DataSession(refuse)
    session.look(make_recipe({}))
    _wait(session, "failed", with_row=False)
    assert "is empty." in session.parts()["head"] and "<script" not in session.parts()["head"]


def test_opening_the_tab_shows_the_train_forms_settings(
    events: DataEvents, tab: data_layout.DataLayout, train_tab: TrainTab, given: dict[Any, Any]
) -> None:
    fields = train_tab.form.fields
    changed = {**given, fields["data.path"]: "toyshop", fields["data.max_length"]: 99}
    shown = _tab(events).open(train_tab.form, changed)
    assert shown[tab.fields["data.path"]].value == "toyshop"
    assert shown[tab.fields["data.max_length"]] == 99
    assert read_json(events.context.form_file) is None  # looking changes nothing


def test_what_is_set_here_is_set_on_the_train_form_and_survives_a_reload(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    shown = events.change({**given_here, tab.fields["data.train_on"]: "everything"})
    assert shown[events.form.fields["data.train_on"]] == "everything"
    assert read_json(events.context.form_file)["data.train_on"] == "everything"


def test_another_dataset_is_read_as_it_is_recognised(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    fields = tab.fields
    shown = events.choose({**given_here, fields["data.path"]: "cards", fields["data.format"]: "sharegpt"})
    assert shown[fields["data.format"]] == shown[events.form.fields["data.format"]] == "auto"


def test_a_suggestion_sets_the_limit(events: DataEvents, given_here: dict[Any, Any]) -> None:
    shown = events.press(given_here, gr.EventData(None, {"act": "limit", "value": "1024"}))
    assert shown[events.form.fields["data.max_length"]] == 1024
    _wait(events.session)
    assert events.session.report["max_length"] == 1024


def test_an_encoding_is_chosen_by_how_the_words_would_read(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    offered = [
        {"encoding": "windows-1250", "words": ["Kočka", "měsíc"]},
        {"encoding": "windows-1252", "words": ["Koèka", "<b>"]},
    ]
    html = data_html.encoding({"stage": "failed", "error": "not sure", "encodings": offered})
    assert 'data-act="encoding" data-value="windows-1250">Windows-1250 (Central Europe)' in html
    assert "Kočka · měsíc" in html and "&lt;b&gt;" in html
    assert "Choose the encoding in which the words read correctly" in html
    menu = data_wire._encoding_menu(offered)
    assert [value for _, value in menu[:3]] == ["auto", "windows-1250", "windows-1252"]
    assert menu[1][0] == "Windows-1250 (Central Europe): Kočka · měsíc"
    assert len(menu) == len({value for _, value in menu})
    updates = events.press(given_here, gr.EventData(None, {"act": "encoding", "value": "windows-1250"}))
    assert updates[tab.fields["data.encoding"]] == "windows-1250"


def test_a_finding_leads_to_its_rows(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    events.open(given_here)
    _wait(events.session)
    shown = events.press(given_here, gr.EventData(None, {"act": "row", "value": "12"}))
    assert shown[tab.pager.row] == 12 and "Row 12 of 80" in shown[tab.parts["row"]]
    shown = events.press(given_here, gr.EventData(None, {"act": "more", "value": "duplicate"}))
    assert 'data-value="22"' in shown[tab.parts["findings"]]
    assert events.show(900)[tab.pager.row] == 80


def test_a_setting_that_cannot_be_is_said(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    shown = events.change({**given_here, tab.fields["data.max_length"]: 3})
    assert "Max length (tokens) (data.max_length): 3 is not valid" in shown[tab.message]


def test_without_a_dataset_the_tab_is_empty(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    shown = events.choose({**given_here, tab.fields["data.path"]: ""})
    assert "No dataset yet" in shown[tab.parts["head"]]


def test_columns_by_hand_begin_with_a_guess(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    canned = report(columns=["Instruction", "output"], turn_columns={}, speakers=[])
    events.session._ask = CannedHelper(canned)
    events.open(given_here)
    _wait(events.session)
    shown = events.correct(given_here)
    assert shown[tab.mapping.group].visible and shown[tab.fields["data.format"]] == "mapping"
    mapping = shown[events.form.fields["data.mapping"]]
    assert (mapping["prompt"], mapping["reply"]) == ("Instruction", "output")
    emptied = events.change(
        {**given_here, **{part: value for part, value in shown.items() if part in given_here}}
        | {tab.mapping.fields["reply"]: ""}
    )
    assert "Choose the columns" in emptied[tab.message]


def test_a_mapping_on_the_screen_reads_back_as_the_same(tab: data_layout.DataLayout) -> None:
    mapping = MappingSettings(turns="talk", role="who", content="said", roles={"Ann": "user", "Bob": "leave out"})
    shown = {part: value or "" for part, value in tab.mapping.updates(mapping.model_dump()).items()}
    assert tab.mapping.values(shown) == mapping.model_dump()


def test_a_guess_names_only_columns_that_are_there() -> None:
    turns = guess({"turn_columns": {"talk": ["speaker", "text"]}, "columns": ["talk"]})
    assert (turns["turns"], turns["role"], turns["content"]) == ("talk", "speaker", "text")
    assert is_enough(turns)
    assert not is_enough(guess({"columns": ["a", "b"]})) and not is_enough(guess({}))
    assert guess({"columns": ["text"]})["text"] == "text"


def test_a_guess_takes_what_the_check_proposes() -> None:
    proposed = {"prompt": "review", "reply": "sentiment", "context": None}
    assert (guess({"columns": ["review", "sentiment"], "mapping": proposed})["reply"]) == "sentiment"
    assert is_enough({**guess({}), "conversation": "id", "role": "who", "content": "said"})
    assert not is_enough({**guess({}), "conversation": "id", "role": "who"})


def test_every_role_can_be_given_by_hand() -> None:
    allowed = MappingSettings.model_json_schema()["properties"]["roles"]["additionalProperties"]["enum"]
    assert set(ROLES) == set(allowed)


def test_a_file_to_take_away_is_written_where_gradio_may_send_it_from(
    events: DataEvents,
    tab: data_layout.DataLayout,
    given_here: dict[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    events.open(given_here)
    _wait(events.session)
    saved = Path(events.saver("json")()[tab.download])
    assert saved.name == "my talks report.json" and saved.is_relative_to(tmp_path / "uploads")
    assert "The disk is full." in events.saver("cleaned")()[tab.saved]


def test_the_tab_says_only_what_changed(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    events.open(given_here)
    _wait(events.session)
    seen: dict[str, Any] = {}
    first = _tab(events).tick(seen)
    assert first[tab.viewer].visible and tab.parts["row"] in first
    assert _tab(events).tick(seen) == {}
    events.show(7)
    assert set(_tab(events).tick(seen)) == {tab.parts["row"], tab.parts["mapped"]}


def test_what_a_press_has_drawn_is_drawn_over_when_it_is_done(
    events: DataEvents, tab: data_layout.DataLayout, given_here: dict[Any, Any]
) -> None:
    session = DataSession(CannedHelper(report(), COUNTING, report()))  # of the second look it is not done at once
    events = DataEvents(tab, events.form, events.context, session)
    events.open(given_here)
    _wait(events.session)
    seen: dict[str, Any] = {}
    done = _tab(events).tick(seen)[tab.parts["head"]]
    drawn = events.change({**given_here, tab.fields["data.system"]: "leave_out"})
    _wait(events.session)
    assert drawn[tab.parts["head"]] != done
    assert _tab(events).tick(seen)[tab.parts["head"]] == done


def test_a_setting_is_called_as_on_the_screen() -> None:
    found = {**finding("reply-cut", "warning", "Too long.", [1]), "mend": "Set data.max_length to 672."}
    assert "Set Max length (tokens) (data.max_length) to 672." in data_html.findings(report(warnings=[found]), {})


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("If so, choose the format question-answer.", "choose the format “Question and answer”."),
        (
            "Say it by hand (format: mapping; such as reply: label).",
            "(format: “Mapped columns”; such as reply: label)",
        ),
        ("Set data.named_splits to ignore.", "Named splits (data.named_splits) to “Train on all rows”."),
        ("Say under data.mapping.roles what they mean.", "under Speaker roles (data.mapping.roles) what"),
        ("It has no column `a<b`.", "It has no column <code>a&lt;b</code>."),
        ("Choose the format you like: 'data.max_length to you'.", "Choose the format you like:"),
    ],
)
def test_a_choice_is_called_as_on_the_screen_and_names_are_set_apart(sentence: str, said: str) -> None:
    state = {**WORKING, "stage": "failed", "error": sentence}
    assert said in data_html.head(state)
    row = {"row": 1, "rows": 2, "raw": {}, "reason": sentence}
    assert said in row_html.row(row) and said in row_html.mapped(row)


def test_the_encoding_in_use_is_not_offered_as_another() -> None:
    offered = [{"encoding": name, "words": ["Kočka"]} for name in ("windows-1250", "iso-8859-2")]
    files = [{"name": "a.csv", "kind": "csv", "rows": 3, "encoding": "Windows-1250 (Central Europe)"}]
    html = data_html.encoding(report(files=files, encodings=offered))
    assert 'data-value="iso-8859-2"' in html and 'data-value="windows-1250"' not in html


def test_one_of_something_is_said_as_one() -> None:
    head = data_html.head(report(rows=78, usable=77, steps_per_epoch=1))
    assert "1 step<" in head and "row; reasons below" in head


def test_of_one_turn_a_row_the_guess_leaves_the_conversation_to_be_named() -> None:
    found = guess(
        {"columns": ["author", "content"], "mapping": {"conversation": None, "role": "author", "content": "content"}}
    )
    assert (found["role"], found["content"], found["text"]) == ("author", "content", None)
    assert not is_enough(found)


def test_the_speakers_names_are_unfolded_where_one_is_not_known(tab: data_layout.DataLayout) -> None:
    state = {"columns": ["messages"], "speakers": ["Ann"], "error": "Say under data.mapping.roles what 'Ann' means."}
    assert tab.mapping.speakers in tab.mapping.choices(state)
    assert tab.mapping.speakers not in tab.mapping.choices({**state, "error": None})


def test_splits_and_joined_turns_are_of_one_dataset(
    events: DataEvents, tab: data_layout.DataLayout, given_here: Any
) -> None:
    set_here = {**given_here, tab.fields["data.named_splits"]: "ignore", tab.fields["data.join_turns"]: True}
    kept = events.change(set_here)
    assert (kept[tab.fields["data.named_splits"]], kept[tab.fields["data.join_turns"]]) == ("ignore", True)
    other = events.choose(set_here)
    assert (other[tab.fields["data.named_splits"]], other[tab.fields["data.join_turns"]]) == ("honour", False)
