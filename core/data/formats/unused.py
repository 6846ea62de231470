"""What a row holds and nobody used: found key by key while it is read, told apart by what it looks like.

A key counts as unused unless a layout says that it used it: one that is forgotten is said too often, never too seldom.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from core.data.conversation import texts_in
from core.data.formats.row_reading import Reading, Worth, missing, plain_name


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ANSWER = _words(
    """
    answer answers response responses reply replies completion completions output outputs target targets solution
    solutions choice choices option options gold truth groundtruth reference label labels class chosen rejected
    correct expected assistant gpt accepted generation generations mask masks train training trainable
    ignore skip learn
    """
)
_SPEAKER = _words("role from speaker author sender character")
# In a row of plain text these say who speaks or what it is, too; beside a question and a reply they are details.
_OF_A_TEXT = _words(
    """
    user username nick nickname who person persona actor participant prompter bot human name category categories
    sentiment intent intents emotion emotions rating ratings stars polarity stance spam toxic toxicity tag tags
    topic topics verdict diagnosis contexts summary summaries highlights translation
    """
)
_TELLING = _SPEAKER | _ANSWER | {"ground_truth", "gold_label", "correct_answer", "expected_output"}
_SAYS_WHICH = _SPEAKER | _OF_A_TEXT | {"label", "labels", "class", "answer", "target"}
_NAMING = _words("id ids idx index name type")
# A name that begins so is a figure about what follows, such as `score_chosen`.
_MEASURES = _words("score scores rating ratings reward rewards logps logprobs length len num n count model source")
_DETAIL = _words(
    """
    id ids uid uuid guid idx index no num nr number row url urls uri link links href path file filename repo
    source sources src dataset origin split subset config lang language languages locale date time timestamp
    created updated edited exported at ts year month day model models engine provider version license meta
    metadata info hash sha md5 length len size tokens token count counts n score scores prob probability
    probabilities logprobs confidence perplexity ppl difficulty level quality reward rewards margin rank ratio
    redacted moderation flag flags is has deleted seed temperature params usage cost latency format type types
    kind state signature cache control status hidden verified valid visible pinned archived avatar color icon
    team channel name names start end offset position annotations citations stop finish system_fingerprint
    """
)
# Small as their values are, they change what the model would see.
_MATTERS = _words("chat_template_kwargs chat_template template enable_thinking documents history tools functions")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PROSE_WORDS, _WORDS_OF_A_DETAIL = 12, 3
_LONGEST_NAME, _LONGEST_PATH = 60, 80


def leave(reading: Reading, where: str, holder: dict[str, Any], used: Collection[str]) -> None:
    """Note the keys of `holder`, which stands at `where` in the row, that are not `used` and hold something."""
    for key, value in holder.items():
        if key not in used and not is_empty(value):
            note(reading, f"{where}.{key}", value)


def note(reading: Reading, path: str, value: Any) -> None:
    """Note that what stands at `path` was not used."""
    reading.left.setdefault(short_path(path), []).append(value)


def unused_of(row: dict[str, Any], plain: dict[str, Any], reading: Reading) -> dict[str, Worth]:
    """Every path in `row` that was not used, with its worth; `plain` is the row with plain names."""
    for name, value in row.items():
        key = plain_name(name)
        if (key not in reading.used or plain[key] is not value) and not is_empty(value):
            note(reading, name, value)
            for key, inner in value.items() if isinstance(value, dict) else ():  # such as `metadata`
                if plain_name(str(key)) in _TELLING and not is_empty(inner):
                    note(reading, f"{name}.{key}", inner)
    return {path: _worth(path, values, reading) for path, values in reading.left.items()}


def short_path(path: str) -> str:
    """A path that can stand in a sentence; of a long one its end, where the key is."""
    line = " ".join(path.split()) or "''"
    return line if len(line) <= _LONGEST_PATH else f"…{line[1 - _LONGEST_PATH :]}"


def is_empty(value: Any) -> bool:
    """Whether there is nothing in it: null, white space, or only such within it. False and 0 say something."""
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, list):
        return all(map(is_empty, value))
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return missing(value)


@lru_cache(maxsize=4096)
def named_worth(path: str, of_text: bool) -> Worth:
    """What a key looks like by its name alone, in a row of plain text or in another."""
    words = [word for word in re.split(r"[^a-z0-9]+", _CAMEL.sub("_", path.rsplit(".", 1)[-1]).lower()) if word]
    if not words:
        return "unused-text"
    whole = "".join(words)
    if of_text and words[-1] in _NAMING and not _SAYS_WHICH.isdisjoint(words[:-1]):
        return "unused-answer"
    if whole in _ANSWER or whole in _SPEAKER or (of_text and whole in _OF_A_TEXT):
        return "unused-answer"
    if len(words) > 1 and words[0] in _MEASURES and not of_text:
        return "unused-detail"
    if words[-1] in _DETAIL or (words[0] in ("is", "has") and words[-1] not in _ANSWER | _OF_A_TEXT):
        return "unused-detail"
    if not _ANSWER.isdisjoint(words) or words[0] in _SPEAKER or words[-1] in _SPEAKER:
        return "unused-answer"
    if of_text and (not _OF_A_TEXT.isdisjoint(words) or "mes" in words):
        return "unused-answer"
    return "unused-text" if _DETAIL.isdisjoint(words) else "unused-detail"


def _worth(path: str, values: list[Any], reading: Reading) -> Worth:
    worth = named_worth(path, reading.text is not None)
    if plain_name(path.rsplit(".", 1)[-1]) in _MATTERS:
        return "unused-text"
    turns = any(map(_is_turns, values))
    if worth == "unused-detail" and not turns:
        prose = any(isinstance(value, str) and value.count(" ") > _PROSE_WORDS for value in values)
        return "unused-text" if prose else worth
    if all(_is_used_elsewhere(value, reading) for value in values):
        return "unused-detail"
    if turns:
        return "unused-answer"
    return "unused-detail" if worth == "unused-text" and all(map(_is_simple, values)) else worth


def _is_turns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def _is_simple(value: Any) -> bool:
    """A number, a truth, a few words: a detail, whatever it is called."""
    if isinstance(value, str):
        return value.count(" ") < _WORDS_OF_A_DETAIL and len(value) <= _LONGEST_NAME
    if isinstance(value, (list, dict)):
        return all(map(_is_simple, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (bool, int, float))


def _is_used_elsewhere(value: Any, reading: Reading) -> bool:
    """Whether a text, or each of a list, is part of what was used, or is the whole of it in another form."""
    if isinstance(value, (list, dict)):
        leaves = [leaf for leaf in texts_in(value) if leaf.count(" ") >= _WORDS_OF_A_DETAIL - 1]
        flat = isinstance(value, list) and not any(isinstance(each, (list, dict)) for each in value)
        wanted = value if flat else leaves
        return bool(wanted) and all(_is_used_elsewhere(leaf, reading) for leaf in wanted)
    if not isinstance(value, str):
        return False
    text = value.strip()
    contents = (reading.text or "", *(message["content"].strip() for message in reading.messages))
    used = [content for content in contents if content]
    if any(text == content or (" " in text and text in content) for content in used):
        return True
    return len(used) > 1 and all(content in text for content in used)
