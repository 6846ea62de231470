"""Pairs of columns, one with the question and one with the reply: alpaca, dolly, prompt/completion, question/answer."""

import json
from typing import Any

from core.data.conversation import Message, Row
from core.data.formats.content import text_of
from core.data.formats.row_reading import SYSTEM_NAMES, DatasetLayout, Reading, Unusable, blank, first_filled, missing
from core.data.formats.tools import TOOL_NAMES, calls_of
from core.data.formats.turn import add_system, read_turns
from core.data.formats.turns import as_turns, asks, read_column
from core.data.formats.unused import leave

PROMPT_NAMES = ("prompt", "instruction", "question", "query", "input", "inputs", "problem", "user", "human",
                "user_prompt", "user_input", "input_text", "request", "text", "source", "document", "article",
                "dialogue", "dialog", "content", "body", "message", "context", "passage")  # fmt: skip
REPLY_NAMES = ("completion", "response", "output", "answer", "reply", "target", "targets", "solution", "assistant",
               "gpt", "assistant_response", "answers", "summary", "highlights",
               "generation", "output_text")  # fmt: skip
CONTEXT_NAMES = ("context", "passage", "contexts", "retrieved_contexts", "article", "document", "story", "paragraph")
_ALPACA_REPLIES = ("output", "response", "completion", "answer", "target")
_ANSWERS = ("answer", "answers", "response", "output")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "complex_cot", "cot")


def read_pair(
    row: Row,
    reading: Reading,
    prompt: str | None,
    reply: str,
    context: str | None = None,
    system: tuple[str, ...] = SYSTEM_NAMES,
    context_first: bool = False,
) -> None:
    """Read system prompt, question (with what it refers to) and reply from the columns of these names."""
    read_prompt(row, reading, prompt, context, context_first)
    add_system(row, reading, system)
    read_reply(row, reading, reply)


def read_prompt(row: Row, reading: Reading, prompt: str | None, context: str | None, context_first: bool) -> None:
    """Add the question: text, or a list of turns, whose replies are not trained on."""
    value = row.get(prompt) if prompt else None
    turns = as_turns(value)
    if turns is not None and prompt is not None:
        read_column(value, turns, prompt, reading)
        leave_untrained(reading.messages)
        value = None
    about = (row.get(context) or None) if context and context != prompt else None
    if isinstance(about, list) and all(isinstance(each, str) for each in about):
        about = "\n\n".join(about)
    parts = [(name, each) for name, each in ((prompt, value), (context, about)) if name and not missing(each)]
    texts = [
        text_of(each, f"its {name!r}", "user", {}, reading, name)
        for name, each in (reversed(parts) if context_first else parts)
    ]
    reading.used.update(name for name, _ in parts)
    if not texts and turns is None:
        raise Unusable(f"its {prompt!r} is missing" if prompt else "it has no prompt")
    filled = [text for text in texts if not blank(text)]
    if texts and (filled or turns is None):
        reading.messages.append({"role": "user", "content": "\n\n".join(filled or texts[:1])})


def read_reply(row: Row, reading: Reading, reply: str) -> None:
    """Add the reply: text, a number, a list of turns, or one or several answers as SQuAD has them."""
    value = row.get(reply)
    turns = as_turns(value)
    if _are_calls(value, row):
        reading.used.add(reply)
        reading.messages.append({"role": "assistant", "content": "", "tool_calls": calls_of(value, reading, reply)})
        return
    # Turns in JSON text are what the reply says where one of them is a question.
    is_text = isinstance(value, str) and any(map(asks, turns or []))
    if turns and isinstance(turns[0], dict) and "text" not in turns[0] and not is_text:
        read_column(value, turns, reply, reading)
        return
    reading.used.add(reply)
    message: Message = {"role": "assistant", "content": ""}
    if reply.startswith("answer"):
        value = _one_answer(value, reply, reading)
    message["content"] = text_of(value, f"its {reply!r}", "assistant", message, reading, reply)
    thought = first_filled(row, _THOUGHTS)
    if thought and thought != reply and isinstance(row[thought], str) and row[thought].strip():
        message["reasoning_content"] = row[thought]
        reading.used.add(thought)
    reading.messages.append(message)


def _are_calls(value: Any, row: Row) -> bool:
    """Whether a reply is calls of the tools that the row offers, as objects or as JSON in a text (as in xLAM)."""
    if not any(first_filled(row, (name,)) for name in TOOL_NAMES):
        return False
    if isinstance(value, str):
        if value.lstrip()[:2] not in ("[{", "[ ", "[\n"):
            return False
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(isinstance(each, dict) and each.keys() >= {"name", "arguments"} for each in calls)


def leave_untrained(messages: list[Message]) -> None:
    """Say of each reply in `messages` that it is not trained on."""
    for message in messages:
        if message["role"] == "assistant":
            message["weight"] = 0.0


def _one_answer(value: Any, name: str, reading: Reading) -> Any:
    """The first of several answers: a list of texts, or SQuAD's `{"text": […], "answer_start": […]}`."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        leave(reading, name, value, {"text"})
        value = value["text"]
    if isinstance(value, list):
        if not value:
            raise Unusable("it has no answer")
        if len(value) > 1 and any(each != value[0] for each in value):
            reading.name("several-answers", name)
        if not isinstance(value[0], dict):
            return value[0]
        leave(reading, f"{name}[]", value[0], {"text"})
        return value[0].get("text")
    return value


def _read_history(row: Row, reading: Reading) -> None:
    if "history" not in row:
        return
    reading.used.add("history")
    if missing(row["history"]) or row["history"] == "":
        return
    history = as_turns(row["history"])
    for turn in [None] if history is None else history:
        if isinstance(turn, list) and len(turn) == 2:
            turn = {"question": turn[0], "answer": turn[1]}
        if not isinstance(turn, dict):
            raise Unusable("its 'history' is not a list of questions and answers")
        read_turns([turn], reading, "history[]")


def _first_present(row: Row, names: tuple[str, ...]) -> str | None:
    """The first of these columns that the row has a value in, else the first that it has."""
    return first_filled(row, names) or next((name for name in names if name in row), None)


def _alpaca_reply(row: Row) -> str | None:
    return first_filled(row, _ALPACA_REPLIES if "input" in row else ("output",))


def _alpaca_sign(row: Row) -> str | None:
    reply = _alpaca_reply(row)
    if missing(row.get("instruction")) or reply is None:
        return None
    return f"`instruction`, `input` and `{reply}` columns" if "input" in row else f"`instruction` and `{reply}` columns"


def _read_alpaca(row: Row, reading: Reading) -> None:
    reply = _alpaca_reply(row) or next((name for name in _ALPACA_REPLIES if name in row), None)
    if "instruction" not in row or reply is None:
        raise Unusable("it has no 'instruction' or no 'output'")
    _read_history(row, reading)
    read_pair(row, reading, "instruction", reply, "input")


def _dolly_sign(row: Row) -> str | None:
    columns = ("instruction", "context", "response")
    return "`instruction`, `context` and `response` columns" if all(name in row for name in columns) else None


def _read_dolly(row: Row, reading: Reading) -> None:
    if "instruction" not in row or "response" not in row:
        raise Unusable("it has no 'instruction' or no 'response'")
    read_pair(row, reading, "instruction", "response", "context")


def _question_sign(row: Row) -> str | None:
    answer = first_filled(row, _ANSWERS)
    if missing(row.get("question")) or answer is None:
        return None
    about = first_filled(row, CONTEXT_NAMES)
    return f"`{about}`, `question` and `{answer}` columns" if about else f"`question` and `{answer}` columns"


def _read_question(row: Row, reading: Reading) -> None:
    answer = _first_present(row, _ANSWERS)
    if "question" not in row or answer is None:
        raise Unusable("it has no 'question' or no 'answer'")
    read_pair(row, reading, "question", answer, first_filled(row, CONTEXT_NAMES), context_first=True)


def prompt_and_reply(row: Row) -> tuple[str, str] | None:
    """The names of the two columns, filled or not, where the row has both."""
    prompt, reply = _first_present(row, PROMPT_NAMES), _first_present(row, REPLY_NAMES)
    return (prompt, reply) if prompt and reply else None


def context_of(row: Row, prompt: str | None) -> str | None:
    """The column with what the question in `prompt` refers to; `input` can be that beside a prompt."""
    beside = prompt is not None and prompt not in ("input", "inputs", "text")
    return first_filled(row, (*CONTEXT_NAMES, "input") if beside else CONTEXT_NAMES)


def _pair_sign(row: Row) -> str | None:
    found = prompt_and_reply(row)
    if found is None or missing(row[found[0]]) or missing(row[found[1]]):
        return None
    return f"`{found[0]}` and `{found[1]}` columns"


def read_prompt_completion(row: Row, reading: Reading) -> None:
    """Read a prompt and a completion, under whichever of their usual names. Raises Unusable."""
    found = prompt_and_reply(row)
    if found is None:
        raise Unusable("it has no prompt or no completion")
    if isinstance(row.get("history"), list):
        _read_history(row, reading)
    read_pair(row, reading, *found, context_of(row, found[0]))


ALPACA = DatasetLayout("alpaca", "Alpaca (instruction, output)", _alpaca_sign, _read_alpaca, "instruction/output")
DOLLY = DatasetLayout("dolly", "Dolly (instruction, response)", _dolly_sign, _read_dolly)
QUESTION_ANSWER = DatasetLayout(
    "question-answer", "Question and answer", _question_sign, _read_question, "question/answer"
)
PROMPT_COMPLETION = DatasetLayout(
    "prompt-completion", "Prompt and completion", _pair_sign, read_prompt_completion, "prompt/completion"
)
