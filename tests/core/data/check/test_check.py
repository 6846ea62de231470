"""The report on a dataset: every finding is made by what causes it and by nothing else, and the counts add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.check import Check, Report, Training, check
from core.recipe import DataSettings
from tests.tiny import TEMPLATE, chat_rows, tiny_tokenizer, write_jsonl

Row = dict[str, Any]
QUIET = chat_rows(12)
TRIMMING = TEMPLATE.replace(
    "message['content'] + '<|im_end|>' }}{%- endgen", "message['content'] | trim + '<|im_end|>' }}{%- endgen"
)
THINKING = TEMPLATE.replace(
    "{{ message['content'] + '<|im_end|>' }}{%- endgen",
    "{{ '<think>\\n\\n</think>' + message['content'] + '<|im_end|>' }}{%- endgen",
)
ENDLESS = TEMPLATE.replace("message['content'] + '<|im_end|>' }}{%- endgen", "message['content'] }}{%- endgen")
SPEECHLESS = TEMPLATE.replace(
    "{{ message['content'] + '<|im_end|>' }}{%- endgen",
    "{{ message['content'] | replace('quick fox', '') + '<|im_end|>' }}{%- endgen",
)
SYSTEMLESS = TEMPLATE.replace(
    "{%- for message in messages -%}", "{%- for message in messages if message['role'] != 'system' -%}"
)
STRICT = (
    "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('no system prompts here') }}{%- endif -%}" + TEMPLATE
)
FUSSY = "{%- if messages[0]['content'] == 'a' -%}{{ raise_exception('no single letters') }}{%- endif -%}" + TEMPLATE
TWICE_BEGUN = "{{ '<|endoftext|><|endoftext|>' }}" + TEMPLATE
ONCE_BEGUN = "{{ '<|endoftext|>' }}" + TEMPLATE


def talk(question: str, reply: str, **reply_fields: Any) -> Row:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply, **reply_fields}]
    }


def with_system(row: Row, text: str = "Speak like a good pirate.") -> Row:
    return {"messages": [{"role": "system", "content": text}, *row["messages"]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check")


def tokenizer_with(folder: Path, template: str) -> Any:
    tokenizer = tiny_tokenizer(folder / f"t{abs(hash(template))}", template)
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


def report_on(
    folder: Path, rows: list[Row], template: str = TEMPLATE, training: Training | None = None, **settings: Any
) -> Report:
    file = write_jsonl(folder / "rows.jsonl", rows)
    tokenizer = tokenizer_with(folder, template)
    return check(file, DataSettings(**settings), tokenizer, training or Training())


def codes(report: Report) -> dict[str, list[int]]:
    return {finding.code: finding.rows for finding in report.findings}


LONG = "the lazy dog jumps over the quick brown fox " * 8
TOOL = {"type": "function", "function": {"name": "look_up_weather", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "look_up_weather", "arguments": {"city": "Oslo"}}}

# code, the rows that cause it (they stand behind twelve innocent ones), what it says, and settings
CAUSES: list[tuple[str, list[Row], str, dict[str, Any]]] = [
    ("duplicate", [QUIET[0]], "1 row is an exact copy", {}),
    (
        "same-prompt-different-reply",
        [talk("a?", "b"), talk("a?", "c")],
        "2 rows have the same prompt as another row",
        {},
    ),
    ("placeholder", [talk("hello {{name}}", "hello there")], "such as {{name}}", {}),
    ("placeholder", [talk("hello", "dear [INSERT NAME HERE], hello")], "such as [INSERT NAME HERE]", {}),
    ("placeholder", [talk("hello", "dear {name}, hello")], "such as {name}", {}),
    ("placeholder", [talk("hello", "dear <your name>, hello")], "such as <your name>", {}),
    ("template-text", [talk("hello", "there<|eot_id|>")], "such as <|eot_id|>", {}),
    ("template-text", [talk("[INST] hello [/INST]", "there")], "such as [INST]", {}),
    ("template-text", [talk("hello", "there ### Human: and you?")], "such as ### Human:", {}),
    ("template-text", [talk("hello", "there</s>")], "such as </s>", {}),
    ("template-text", [talk("hello", "there<|im_end|>")], "such as <|im_end|>", {}),
    (
        "very-long",
        [talk("hello", "jumps over " * 3000)],
        "1 row is more than 25 times as long",
        {"max_length": 131_072},
    ),
    ("reply-cut", [talk("hello", LONG)], "1 row is longer than the limit of 64 tokens", {"max_length": 64}),
    (
        "question-fills-limit",
        [talk(LONG, "yes")],
        "In 1 row the prompt alone fills the limit of 64",
        {"max_length": 64},
    ),
]


@pytest.mark.parametrize(
    ("code", "rows", "said", "settings"), CAUSES, ids=[f"{each[0]}-{i}" for i, each in enumerate(CAUSES)]
)
def test_each_cause_is_found_with_its_rows_and_nothing_else_is(
    folder: Path, code: str, rows: list[Row], said: str, settings: dict[str, Any]
) -> None:
    report = report_on(folder, [*QUIET, *rows], **settings)
    assert codes(report) == {code: list(range(13, 13 + len(rows)))}
    assert said in report.findings[0].message
    assert report.findings[0].count == len(rows)


def test_rows_without_fault_have_no_finding(folder: Path) -> None:
    innocent = [
        talk("write a greeting", "```python\nprint(f'{name}')\n```"),
        talk("what is {{x}} in Jinja?", "```\n{{ name }}\n```"),
        talk("a < b and c > d?", "a list [1, 2] and a dict {1: 2}"),
        talk("how do I write bold?", "<b>so</b> or [so](there)"),
        talk("a set", "{a, b} and $\\frac{x}{y}$ and ${name}"),
    ]
    report = report_on(folder, [*QUIET, *innocent], max_length=1024)
    assert codes(report) == {}
    assert report.stage == "done"


@pytest.mark.parametrize(
    ("code", "template", "innocent", "row", "said"),
    [
        ("no-end-of-turn", ENDLESS, TEMPLATE, talk("a", "b"), "learned without <|im_end|>"),
        ("double-bos", TWICE_BEGUN, ONCE_BEGUN, talk("a", "b"), "begin"),
        ("reply-changed", TRIMMING, TEMPLATE, talk("a", " b "), "white space at both ends is trimmed (1)"),
        ("reply-changed", THINKING, TEMPLATE, talk("a", "b"), "an empty think block is added before it"),
        ("reply-dropped", SPEECHLESS, TEMPLATE, talk("a", "quick fox"), "omits the text of the reply"),
        ("system-dropped", SYSTEMLESS, TEMPLATE, with_system(talk("a", "b")), "1 row has a system prompt"),
        ("system-refused", STRICT, TEMPLATE, with_system(talk("a", "b")), "1 row is dropped because"),
        ("unrenderable", FUSSY, TEMPLATE, talk("a", "b"), "no single letters"),
    ],
)
def test_what_a_template_does_is_found(
    folder: Path, code: str, template: str, innocent: str, row: Row, said: str
) -> None:
    rows = [*QUIET, row]
    report = report_on(folder, rows, template)
    assert list(codes(report)) == [code]
    assert said in report.findings[0].message
    assert codes(report_on(folder, rows, innocent)) == {}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**talk("weather?", "sunny"), "tools": [TOOL]}, "descriptions of tools (1)"),
        (talk("weather?", "sunny", tool_calls=[CALL]), "tool calls (1)"),
        (talk("weather?", "sunny", reasoning_content="It is July."), "reasoning (1)"),
        (talk("weather?", "sunny", name="Marvin"), "names of speakers (1)"),
    ],
)
def test_content_that_a_template_drops_is_named(folder: Path, row: Row, said: str) -> None:
    report = report_on(folder, [*QUIET, row])
    assert codes(report) == {"content-dropped": [13]}
    assert said in report.findings[0].message
    fields = "{{ message.reasoning_content or '' }}{{ message.name or '' }}"
    fields += "{{ message.tool_calls | tojson if message.tool_calls else '' }}"
    carries = "{{ tools | tojson if tools else '' }}" + TEMPLATE.replace(
        "{%- generation -%}", "{%- generation -%}" + fields
    )
    assert codes(report_on(folder, [*QUIET, row], carries)) == {}


def test_a_reply_that_is_masked_in_the_middle_has_its_end(folder: Path) -> None:
    detail = [
        {"begin_offset": 0, "end_offset": 10, "train": True},
        {"begin_offset": 11, "end_offset": 17, "train": False},
    ]
    masked = talk("What is red?", "A red ball. SECRET", train_detail=detail)
    several = {"messages": [*masked["messages"], *talk("And blue?", "a blue kite")["messages"]]}
    assert codes(report_on(folder, [*QUIET, masked, several])) == {}
    assert codes(report_on(folder, [*QUIET, masked], ENDLESS)) == {"no-end-of-turn": list(range(1, 14))}


@pytest.mark.parametrize("line", ["1/{}/24, 09:01 - Ann: the red ball", "[0{}.01.24, 09:01:22] Ann: the red ball"])
def test_the_log_of_a_chat_is_no_plain_text_without_a_word(folder: Path, line: str) -> None:
    log = "\n".join(line.format(day) for day in range(1, 6))
    report = report_on(folder, [{"text": log}], format="text", max_length=512)
    assert codes(report) == {"chat-log": [1]}
    assert "Ann: …" in report.findings[0].message
    diary = "On 1/1/24, 09:01 she wrote: the red ball.\n" * 5
    assert codes(report_on(folder, [{"text": diary}], format="text", max_length=512)) == {}


def test_a_row_in_which_nothing_counts_is_found_and_dropped(folder: Path) -> None:
    blind = TEMPLATE.replace(
        "{%- generation -%}{{ message['content'] + '<|im_end|>' }}{%- endgeneration -%}{{ '\\n' }}", ""
    )
    assert blind != TEMPLATE
    report = report_on(folder, QUIET, blind)
    assert {"nothing-trained", "nothing-usable"} <= set(codes(report))
    assert (report.usable, len(report.dropped), report.rows) == (0, 12, 12)
    assert report.findings[0].severity == "error"


def test_a_reply_far_shorter_than_the_rest_is_found(folder: Path) -> None:
    rows = [talk(f"question {i}", f"{i} the lazy dog jumps over the quick brown fox " * 5) for i in range(12)]
    report = report_on(folder, [*rows, talk("what?", "ok")], max_length=1024)
    assert codes(report) == {"very-short": [13]}
    short = [talk(f"question {i}", "ok" if i % 2 else "no") for i in range(12)]
    assert "very-short" not in codes(report_on(folder, short))


def test_findings_of_reading_stand_among_the_others_worst_first(folder: Path) -> None:
    turns = talk("a", "b")["messages"]
    rows = [*QUIET, {"messages": [turns[1], *turns]}, QUIET[0], talk("hello {{name}}", "x"), talk("{{name}}", "y")]
    found = report_on(folder, rows).findings
    assert [each.code for each in found] == ["placeholder", "assistant-first", "duplicate"]
    assert codes(report_on(folder, [*rows, talk("hello there 1", "z")]))


def test_usable_and_dropped_add_up_to_rows(folder: Path) -> None:
    rows = [*QUIET, {"messages": []}, talk(LONG, "yes"), talk("a", "")]
    report = report_on(folder, rows, max_length=64)
    assert (report.rows, report.usable, [each.row for each in report.dropped]) == (15, 12, [13, 14, 15])
    assert all(each.reason for each in report.dropped)


def test_the_json_has_the_fields_that_others_build_on(folder: Path) -> None:
    found = report_on(folder, QUIET).as_json()
    assert {"format", "rows", "usable", "dropped", "truncated", "tokens", "warnings"} <= set(found)
    assert set(found["tokens"]) == {"total", "trained", "p50", "p95", "max", "exact", "sample", "interval"}
    assert found["split"]["train"] + found["split"]["held_out"] == found["usable"] == 12
    assert sum(found["lengths"]["counts"]) == 12
    assert found["columns"] == ["messages"]
    assert found["files"][0]["kind"] == "jsonl"
    assert (found["stage"], found["progress"]) == ("done", 1.0)


def test_the_tokens_are_those_that_training_sees(folder: Path) -> None:
    from core.data.dataset import load
    from core.data.rendering.render import render_all

    settings = DataSettings(max_length=32)
    file = write_jsonl(folder / "same.jsonl", chat_rows(40))
    tokenizer = tokenizer_with(folder, TEMPLATE)
    tokens = check(file, settings, tokenizer, Training()).as_json()["tokens"]
    rendered = render_all(tokenizer, load(file, settings), settings)
    assert tokens["total"] == sum(len(row.ids) for row in rendered.usable)
    assert tokens["trained"] == sum(sum(row.trained) for row in rendered.usable)
    assert tokens["max"] == max(row.full_length for row in rendered.usable)


def test_the_given_tokenizer_keeps_its_template(folder: Path) -> None:
    tokenizer = tokenizer_with(folder, TEMPLATE)
    check(write_jsonl(folder / "rows.jsonl", QUIET), DataSettings(template="guanaco"), tokenizer, Training())
    assert tokenizer.chat_template == TEMPLATE


def test_a_chat_that_stops_elsewhere_makes_the_learned_end_useless(folder: Path) -> None:
    assert codes(report_on(folder, QUIET, training=Training(stops={3}))) == {}  # the tokenizer's own end counts too
    tokenizer = tokenizer_with(folder, TEMPLATE)
    tokenizer.eos_token = "<|endoftext|>"
    file = write_jsonl(folder / "rows.jsonl", QUIET)
    other = check(file, DataSettings(), tokenizer, Training(stops={tokenizer.eos_token_id}))
    assert codes(other) == {"no-end-of-turn": list(range(1, 13))}
    unknown = check(file, DataSettings(), tokenizer, Training())
    assert codes(unknown) == {}


def test_plain_text_goes_on_in_pieces_and_is_never_cut(folder: Path) -> None:
    report = report_on(folder, [{"text": LONG}, {"text": "a red ball"}], max_length=32, format="text")
    assert (report.rows, report.usable) == (2, 2)
    assert report.figures is not None
    assert report.figures.truncated == 0
    assert codes(report) == {}


def test_a_large_file_is_sampled_first_and_then_counted(folder: Path) -> None:
    rows = [*chat_rows(100), talk(LONG, "yes"), {"messages": []}]
    file = write_jsonl(folder / "large.jsonl", rows)
    job = Check(file, DataSettings(max_length=64), tokenizer_with(folder, TEMPLATE), Training(), sample_above_bytes=100)
    job.sample_rows = 60
    read, sampled, exact = job.reports()
    assert (read.stage, sampled.stage, exact.stage) == ("tokens", "tokens", "done")
    assert read.figures is None
    assert sampled.figures is not None
    assert exact.figures is not None
    assert (sampled.figures.exact, sampled.figures.sample) == (False, 60)
    assert (exact.figures.exact, exact.figures.sample, exact.figures.interval) == (True, None, None)
    interval = sampled.figures.interval or {}
    for name in ("total", "trained", "p95"):
        low, high = interval[name]
        assert low <= getattr(sampled.figures, name) <= high
        assert low <= getattr(exact.figures, name) <= high
    for report in (read, sampled, exact):
        assert report.usable + len(report.dropped) == report.rows == 102
    whole = check(file, DataSettings(max_length=64), tokenizer_with(folder, TEMPLATE), Training())
    assert exact.as_json() == whole.as_json()


def test_who_waits_for_no_exact_figures_gets_the_samples(folder: Path) -> None:
    file = write_jsonl(folder / "large.jsonl", chat_rows(30))
    job = Check(file, DataSettings(), tokenizer_with(folder, TEMPLATE), Training(), sample_above_bytes=10)
    assert [report.stage for report in job.reports()] == ["tokens", "done"]  # fewer rows than a sample: no sample


def test_progress_rises_and_may_end_the_work(folder: Path) -> None:
    file = write_jsonl(folder / "rows.jsonl", chat_rows(600))
    told: list[tuple[str, float]] = []
    check(file, DataSettings(), tokenizer_with(folder, TEMPLATE), Training(), progress=lambda *news: told.append(news))
    for stage in ("reading", "tokens"):
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert 0 <= shares[0] <= shares[-1] <= 1
    assert told[-1] == ("tokens", 1.0)

    def stop(stage: str, share: float) -> None:
        if stage == "tokens":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(file, DataSettings(), tokenizer_with(folder, TEMPLATE), Training(), progress=stop)


@given(
    st.lists(
        st.builds(talk, st.text(max_size=30), st.text(max_size=30)) | st.just({"messages": []}) | st.just({}),
        max_size=12,
    )
)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_rows_never_break_the_sum(folder: Path, rows: list[Row]) -> None:
    report = report_on(folder, [QUIET[0], *rows], max_length=32)
    assert report.usable + len(report.dropped) == report.rows == len(rows) + 1
    assert all(0 < row <= report.rows for finding in report.findings for row in finding.rows)
    found = report.as_json()
    assert found["split"]["train"] + found["split"]["held_out"] == found["usable"]
    assert sum(found["lengths"]["counts"]) == found["usable"]


ASKS_TO_THINK = TEMPLATE.replace("'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n<think>\\n' }}")
ONLY_THE_NEWEST = TEMPLATE.replace("{%- generation -%}{{ ", "{{ ('<think>\\n' if loop.last else '') + ").replace(
    "{%- endgeneration -%}", ""
)


@pytest.mark.parametrize(
    ("settings", "code", "severity"),
    [
        ({}, "prompt-fitted", "note"),
        ({"generation_prompt": "continued"}, "prompt-continued", "note"),
        ({"generation_prompt": "continued", "train_on": "everything"}, "prompt-unanswered", "warning"),
    ],
)
def test_a_prompt_that_replies_do_not_go_on_from_is_told(
    folder: Path, settings: dict[str, Any], code: str, severity: str
) -> None:
    report = report_on(folder, QUIET, ASKS_TO_THINK, **settings)
    assert codes(report) == {code: list(range(1, 13))}
    [finding] = report.findings
    assert finding.severity == severity and "`<think>\\n`" in finding.message
    assert "data.generation_prompt" in finding.mend


def test_replies_that_take_a_text_of_their_own_are_told(folder: Path) -> None:
    two = {"messages": [*QUIET[0]["messages"], *QUIET[1]["messages"]]}
    report = report_on(folder, [*QUIET, two], ONLY_THE_NEWEST)
    assert codes(report)["turns-apart"] == [13]
    assert (report.rows, report.usable, len(report.dropped)) == (13, 13, 0)


def test_a_thought_that_only_ends_is_no_empty_one(folder: Path) -> None:
    """As a model says it whose prompt has opened the block already."""
    carries = TEMPLATE.replace(
        "{{ message['content'] + '<|im_end|>' }}{%- endgen",
        "{{ '<think>\\n' + message['content'] + '<|im_end|>' }}{%- endgen",
    )
    report = report_on(folder, [*QUIET, talk("two and two?", "I add.\n</think>\n\nFour.")], carries)
    assert codes(report) == {}


def test_reasoning_of_two_kinds_in_one_reply_is_told_and_the_same_twice_is_not(folder: Path) -> None:
    carries = TEMPLATE.replace("{%- generation -%}", "{%- generation -%}{{ message.reasoning_content or '' }}")
    said = "<think>\nI add.\n</think>\n\nFour."
    rows = [*QUIET, talk("2+2?", said, reasoning_content="I add."), talk("2 + 2?", said, reasoning_content="I guess.")]
    assert codes(report_on(folder, rows, carries)) == {"reasoned-twice": [14]}
