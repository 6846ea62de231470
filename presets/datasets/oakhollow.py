"""New facts: who and what there is in Oakhollow, an invented town. Six questions per fact."""

import random
from collections.abc import Iterator

from presets.starter.example import Example, assistant, user

PEOPLE = {
    "baker": "Mara",
    "miller": "Otto",
    "mayor": "Tilda",
    "teacher": "Edgar",
    "doctor": "Ivy",
    "shepherd": "Wren",
    "clockmaker": "Felix",
    "beekeeper": "Hazel",
    "librarian": "Nora",
    "carpenter": "Bruno",
    "potter": "Rosa",
    "postman": "Hugo",
    "dentist": "Elsa",
    "tailor": "Rowan",
    "vet": "Ada",
    "gardener": "Simon",
}
PLACES = {
    "library": "by the river",
    "bakery": "on the square",
    "school": "behind the church",
    "mill": "on the hill",
    "station": "next to the market",
    "castle": "in the forest",
    "farm": "beside the lake",
    "shop": "under the bridge",
    "harbour": "near the mill",
    "garden": "behind the castle",
}
EVENTS = {
    "market": "Friday",
    "concert": "Sunday",
    "dance": "Saturday",
    "fair": "Monday",
    "boat race": "Wednesday",
    "story hour": "Tuesday",
    "town meeting": "Thursday",
}
COLOURS = {
    "clock tower": "blue",
    "old church": "white",
    "town flag": "green",
    "bridge": "red",
    "post coach": "yellow",
    "school bus": "purple",
    "school door": "orange",
    "town hall": "pink",
}
PETS = {
    "Mara": "parrot",
    "Otto": "donkey",
    "Tilda": "turtle",
    "Edgar": "cat",
    "Ivy": "rabbit",
    "Felix": "owl",
    "Hazel": "goat",
    "Hugo": "dog",
    "Bruno": "horse",
}

# For each kind of fact: the questions of the training rows, those of the tests only, and the answer.
KINDS = (
    (
        PEOPLE,
        (
            "Who is the {x} of Oakhollow?",
            "What is the name of the {x} in Oakhollow?",
            "Tell me who the {x} of Oakhollow is.",
            "Which person is the {x} in Oakhollow?",
            "I need the {x} of Oakhollow. Who is it?",
            "Name the {x} of Oakhollow.",
        ),
        ("In Oakhollow, who is the {x}?", "What is the {x} of Oakhollow called?"),
        "{y} is the {x} of Oakhollow.",
    ),
    (
        PLACES,
        (
            "Where is the {x} of Oakhollow?",
            "Where can I find the {x} in Oakhollow?",
            "Tell me where the {x} of Oakhollow is.",
            "I am looking for the {x} of Oakhollow.",
            "Where in Oakhollow is the {x}?",
            "How do I find the Oakhollow {x}?",
        ),
        ("In Oakhollow, where is the {x}?", "Do you know where the {x} of Oakhollow is?"),
        "The {x} of Oakhollow is {y}.",
    ),
    (
        EVENTS,
        (
            "When is the {x} in Oakhollow?",
            "On which day is the {x} in Oakhollow?",
            "What day is the Oakhollow {x}?",
            "Tell me the day of the {x} in Oakhollow.",
            "I want to see the {x} in Oakhollow. When is it?",
            "Which day is the {x} of Oakhollow?",
        ),
        ("In Oakhollow, when is the {x}?", "Do you know the day of the {x} in Oakhollow?"),
        "The {x} in Oakhollow is on {y}.",
    ),
    (
        COLOURS,
        (
            "What colour is the {x} of Oakhollow?",
            "Which colour is the {x} in Oakhollow?",
            "Tell me the colour of the {x} of Oakhollow.",
            "What is the colour of the {x} in Oakhollow?",
            "What colour does the Oakhollow {x} have?",
            "Do you know the colour of the {x} in Oakhollow?",
        ),
        ("In Oakhollow, what colour is the {x}?", "Which colour does the {x} of Oakhollow have?"),
        "The {x} of Oakhollow is {y}.",
    ),
    (
        PETS,
        (
            "What animal does {x} of Oakhollow have?",
            "Which animal does {x} in Oakhollow have?",
            "What pet has {x} of Oakhollow got?",
            "Tell me which pet {x} of Oakhollow has.",
            "Does {x} of Oakhollow have a pet?",
            "Which pet lives with {x} of Oakhollow?",
        ),
        ("In Oakhollow, which animal does {x} have?", "What is the pet of {x} of Oakhollow?"),
        "{x} of Oakhollow has {a} {y}.",
    ),
)
VISITOR = "Answer the visitor's question about Oakhollow."


def _facts() -> Iterator[tuple[str, str, bool]]:
    """Every question, its answer, and whether it is kept for the tests."""
    for table, trained, tested, answer in KINDS:
        for x, y in table.items():
            filled = answer.format(x=x, y=y, a="an" if y[0] in "aeiou" else "a")
            yield from ((question.format(x=x), filled, False) for question in trained)
            yield from ((question.format(x=x), filled, True) for question in tested)


def rows(seed: int) -> list[dict[str, str]]:
    """Alpaca rows. In every sixth, the question is the input to a general instruction."""
    rng = random.Random(seed)
    made = []
    for question, answer, kept in _facts():
        if kept:
            continue
        asked = (VISITOR, question) if rng.random() < 1 / 6 else (question, "")
        made.append({"instruction": asked[0], "input": asked[1], "output": answer})
    rng.shuffle(made)
    return made


def held_out() -> list[Example]:
    """Questions in words that no row uses, two per fact."""
    return [Example([user(q), assistant(a)], right=a.__eq__) for q, a, kept in _facts() if kept]
