"""Tiny stories with blanks, and the test of whether a text is one of them."""

import random
import re

from presets.starter import words as w

BLANKS = {
    "name": w.NAMES,
    "friend": w.NAMES,
    "animal": w.ANIMALS,
    "thing": w.THINGS,
    "place": w.PLACES,
    "colour": w.COLOURS,
    "food": w.FOODS,
    "day": w.DAYS,
}

# Given is {animal} in a story about an animal, {name} in one about a person, {thing} in one about a thing.
STORIES = {
    "animal": (
        "Once there was a little {animal}. The {animal} lived near the {place}. One day it found a "
        "{colour} {thing}. "
        "It took the {thing} home and was very happy.",
        "A {animal} wanted to see the {place}. The way was long, but the {animal} did not stop. In "
        "the evening it "
        "came to the {place} and smiled. The {animal} had done it.",
        "One cold night a {animal} had no place to sleep. A kind girl opened the door and gave it "
        "some {food}. "
        "The {animal} slept by the fire, and the next day they were friends.",
    ),
    "name": (
        "On {day} {name} walked to the {place}. There {name} met an old friend. They sat down, ate "
        "{food} and talked "
        "until the sun went down. It was a good day.",
        "{name} wanted to bake a cake, but there was not enough {food} in the house. So {name} asked "
        "the neighbour. "
        "The neighbour helped, and they ate the cake together.",
        "{name} was afraid of the dark. One night {name} looked out of the window and saw the moon. "
        "The moon was "
        "so bright that {name} was not afraid any more.",
    ),
    "thing": (
        "Once there was an old {thing}. Nobody wanted it. Then a boy painted the {thing} {colour}. "
        "Now everybody "
        "in the town loves the {colour} {thing}.",
        "A captain had lost a {thing} at sea. A fish found it and brought it back. The captain "
        "thanked the fish "
        'and said, "Ahoy, matey! You are a true friend."',
    ),
}


def tell(rng: random.Random, about: str, word: str) -> str:
    """A story about `word`, which is an animal, a name or a thing, as `about` says."""
    blanks = {blank: rng.choice(options) for blank, options in BLANKS.items()} | {about: word}
    return _with_articles(rng.choice(STORIES[about]).format(**blanks))


def is_story(text: str, about: str, word: str) -> bool:
    """Whether the whole `text` is one of the stories about `word`, each blank filled with a fitting word."""
    for story in STORIES[about]:
        pattern, seen = "", set()
        for literal, blank in re.findall(r"([^{]*)(?:\{(\w+)\})?", story):
            pattern += re.sub(r"\b([Aa]) $", r"\1n? ", re.escape(literal).replace(r"\ ", " "))
            if blank == about:
                pattern += re.escape(word)
            elif blank in seen:
                pattern += f"(?P={blank})"
            elif blank:
                pattern += f"(?P<{blank}>{'|'.join(map(re.escape, BLANKS[blank]))})"
                seen.add(blank)
        if re.fullmatch(pattern, text) and text == _with_articles(text):
            return True
    return False


def _with_articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
