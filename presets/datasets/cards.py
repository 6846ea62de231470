"""An output format: a sentence about a pet becomes a card in JSON."""

import json
import random
from collections.abc import Iterator

from presets.starter import words as w
from presets.starter.example import Example, assistant, user

SENTENCES = (
    "{name} has {a} {colour} {pet}.",
    "{name} owns {a} {colour} {pet}.",
    "The {colour} {pet} belongs to {name}.",
    "I met {name} today, with {a} {colour} {pet}.",
    "There is {a} {colour} {pet} in the garden. It belongs to {name}.",
)


def examples(seed: int) -> Iterator[Example]:
    """Endless sentences, each with its card. No sentence comes twice."""
    rng = random.Random(seed)
    told: set[str] = set()
    while True:
        name, pet, colour = rng.choice(w.NAMES), rng.choice(w.PETS), rng.choice(w.COLOURS)
        article = "an" if colour[0] in "aeiou" else "a"
        text = rng.choice(SENTENCES).format(name=name, pet=pet, colour=colour, a=article)
        if text in told:
            continue
        told.add(text)
        card = json.dumps({"name": name, "pet": pet, "colour": colour})
        yield Example([user(text), assistant(card)], right=card.__eq__)
