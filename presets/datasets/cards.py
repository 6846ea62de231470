"""An output format: a sentence about a pet becomes a card in JSON."""

import json
import random
from collections.abc import Iterator

from presets.starter import words as w
from presets.starter.example import Example, assistant, user

SENTENCES = (
    "{name} has {a} {colour} {pet} called {called}.",
    "{called} is {a} {colour} {pet}. {called} lives with {name}.",
    "{name} owns {a} {colour} {pet} with the name {called}.",
    "I met {name} today, with {a} {colour} {pet} called {called}.",
    "{called}, the {colour} {pet}, belongs to {name}.",
)


def examples(seed: int) -> Iterator[Example]:
    """Endless sentences, each with its card; no sentence comes twice."""
    rng = random.Random(seed)
    told: set[str] = set()
    while True:
        name, called = rng.sample(w.NAMES, 2)
        pet, colour = rng.choice(w.PETS), rng.choice(w.COLOURS)
        article = "an" if colour[0] in "aeiou" else "a"
        text = rng.choice(SENTENCES).format(name=name, called=called, pet=pet, colour=colour, a=article)
        if text in told:
            continue
        told.add(text)
        card = json.dumps({"name": called, "pet": pet, "colour": colour, "owner": name})
        yield Example([user(text), assistant(card)], right=card.__eq__)
