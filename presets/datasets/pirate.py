"""A persona: the starter's own everyday questions, answered by a pirate."""

import random
import re
from collections.abc import Iterator

from presets.starter import kinds_copying as copying
from presets.starter import kinds_facts as facts
from presets.starter import kinds_talk as talk
from presets.starter.example import Example, Kind, assistant

KINDS: dict[Kind, int] = {
    facts.opposite: 3,
    facts.colour_of: 3,
    facts.use_of: 3,
    facts.sound: 2,
    facts.home: 2,
    facts.job: 2,
    facts.day: 2,
    copying.introduction: 3,
    talk.small_talk: 3,
}

SEA_WORDS = {
    "is": "be",
    "are": "be",
    "you": "ye",
    "your": "yer",
    "hello": "ahoy",
    "my": "me",
    "i": "I",
    "am": "be",
}


def in_pirate(text: str) -> str:
    """`text` as the pirate says it: sea words for plain ones, and `matey` and `Arr` at the end."""

    def swap(found: re.Match[str]) -> str:
        word = found.group()
        said = SEA_WORDS.get(word.lower(), word)
        return said.capitalize() if word[0].isupper() and len(said) > 1 else said

    spoken = re.sub(r"[A-Za-z]+", swap, text)
    return f"{spoken[:-1]}, matey{spoken[-1]} Arr!"


def examples(seed: int) -> Iterator[Example]:
    """Endless pairs of a question and its answer. No question comes twice, however it is typed."""
    rng = random.Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    asked: set[str] = set()
    while True:
        example = rng.choices(kinds, weights)[0](rng)
        question = re.sub(r"\W+", " ", example.prompt[-1]["content"].lower())
        if question in asked:
            continue
        asked.add(question)
        answer = in_pirate(example.messages[-1]["content"])
        yield Example([*example.prompt, assistant(answer)], right=answer.__eq__)
