"""Kinds of conversation whose answer is in the prompt: who, what, where, when, how much.

One person or thing at a time. Stories with two or three alike ("Tom has a red ball. Mia has a blue cup. Who has the
cup?") were tried for 1,850 steps, and so was "Tom is taller than Mia. Who is shorter?": the model went on guessing.
"""

import random

from presets.starter import words as w
from presets.starter.example import Example, Kind, casual, exchange


def belongings(rng: random.Random) -> Example:
    """Someone and their coloured thing."""
    name, thing, colour = rng.choice(w.NAMES), rng.choice(w.THINGS + w.PETS), rng.choice(w.COLOURS)
    story = rng.choice(
        (
            f"{name} has {w.a(colour)} {thing}.",
            f"{name} owns {w.a(colour)} {thing}.",
            f"The {colour} {thing} belongs to {name}.",
            f"{name} buys {w.a(colour)} {thing}.",
        )
    )
    question, answer = rng.choice(
        (
            (f"What colour is the {thing}?", f"The {thing} is {colour}."),
            (f"Which colour does the {thing} have?", f"The {thing} is {colour}."),
            (f"Who has the {thing}?", f"{name} has the {thing}."),
            (f"Whose is the {thing}?", f"{name} has the {thing}."),
            (f"What does {name} have?", f"{name} has {w.a(colour)} {thing}."),
            (f"What colour is {name}'s {thing}?", f"{name}'s {thing} is {colour}."),
        )
    )
    return exchange(rng, f"{story} {question}", answer)


def pets_called(rng: random.Random) -> Example:
    """Someone's pet, its colour and its name."""
    name, called = rng.sample(w.NAMES, 2)
    pet, colour = rng.choice(w.PETS), rng.choice(w.COLOURS)
    story = rng.choice(
        (
            f"{name} has {w.a(colour)} {pet} called {called}.",
            f"{called} is {w.a(colour)} {pet}. {called} lives with {name}.",
            f"{called} the {colour} {pet} belongs to {name}.",
            f"{name} owns {w.a(pet)}. The {pet} is {colour} and its name is {called}.",
        )
    )
    question, answer = rng.choice(
        (
            (f"What is {name}'s {pet} called?", f"{name}'s {pet} is called {called}."),
            (f"What colour is {called}?", f"{called} is {colour}."),
            (f"Who is the owner of {called}?", f"{name} is the owner of {called}."),
            (f"What kind of animal is {called}?", f"{called} is {w.a(pet)}."),
        )
    )
    return exchange(rng, f"{story} {question}", answer)


def whereabouts(rng: random.Random) -> Example:
    thing, spot, colour = rng.choice(w.THINGS + w.PETS), rng.choice(w.SPOTS), rng.choice(w.COLOURS)
    story = rng.choice(
        (f"The {thing} is {spot}.", f"The {colour} {thing} is {spot}.", f"There is {w.a(thing)} {spot}.")
    )
    question = rng.choice((f"Where is the {thing}?", f"Where can I find the {thing}?", f"What is {spot}?"))
    return exchange(rng, f"{story} {question}", f"The {thing} is {spot}.")


def journeys(rng: random.Random) -> Example:
    name, place, day = rng.choice(w.NAMES), rng.choice(w.PLACES), rng.choice(w.DAYS)
    question, answer = rng.choice(
        (
            (f"Where does {name} go?", f"{name} goes to the {place}."),
            (f"When does {name} go to the {place}?", f"{name} goes to the {place} on {day}."),
            (f"Who goes to the {place}?", f"{name} goes to the {place}."),
            (f"On which day does {name} go to the {place}?", f"{name} goes to the {place} on {day}."),
        )
    )
    return exchange(rng, f"{name} goes to the {place} on {day}. {question}", answer)


def townsfolk(rng: random.Random) -> Example:
    """Where someone lives and what they work as."""
    name, town = rng.choice(w.NAMES), rng.choice(w.TOWNS)
    who = rng.choice(list(w.JOBS))
    story = f"{name} lives in {town} and works as {w.a(who)}."
    question, answer = rng.choice(
        (
            (f"Where does {name} live?", f"{name} lives in {town}."),
            (f"What is {name}'s job?", f"{name} is {w.a(who)}."),
            (f"Who lives in {town}?", f"{name} lives in {town}."),
            (f"What does {name} work as?", f"{name} is {w.a(who)}."),
            (f"In which town does {name} live?", f"{name} lives in {town}."),
            (f"Who is the {who} in {town}?", f"{name} is the {who} in {town}."),
        )
    )
    return exchange(rng, f"{story} {question}", answer)


def town_notes(rng: random.Random) -> Example:
    """A fact about a town: a colour, a day or a place."""
    town, name, pet = rng.choice(w.TOWNS), rng.choice(w.NAMES), rng.choice(w.PETS)
    thing, colour = rng.choice(w.TOWN_THINGS), rng.choice(w.COLOURS)
    event, day = rng.choice(w.EVENTS), rng.choice(w.DAYS)
    place, spot = rng.choice(w.PLACES), rng.choice(w.SPOTS)
    note, question = rng.choice(
        (
            (f"The {thing} of {town} is {colour}.", f"What colour is the {thing} of {town}?"),
            (f"The {event} in {town} is on {day}.", f"When is the {event} in {town}?"),
            (f"The {place} of {town} is {spot}.", f"Where is the {place} of {town}?"),
            (f"{name} of {town} has {w.a(pet)}.", f"What pet does {name} of {town} have?"),
        )
    )
    return exchange(rng, f"{note} {question}", note)


def unknown_town(rng: random.Random) -> Example:
    """The same kind of question with nothing to read: the starter knows no town by heart, and says so."""
    town, name = rng.choice(w.TOWNS), rng.choice(w.NAMES)
    question = rng.choice(
        (
            f"What colour is the {rng.choice(w.TOWN_THINGS)} of {town}?",
            f"When is the {rng.choice(w.EVENTS)} in {town}?",
            f"Where is the {rng.choice(w.PLACES)} of {town}?",
            f"Who is the {rng.choice(list(w.JOBS))} of {town}?",
            f"What animal does {name} of {town} have?",
            f"Tell me about {town}.",
            f"What do you know about {name} of {town}?",
        )
    )
    return exchange(rng, casual(rng, question), f"I am sorry, I do not know {town}.")


def prices(rng: random.Random) -> Example:
    thing, cost = rng.choice(w.THINGS), rng.randint(2, 12)
    story = rng.choice(
        (f"{w.a(thing).capitalize()} costs {cost} coins.", f"The price of {w.a(thing)} is {cost} coins.")
    )
    question = rng.choice(
        (
            f"How much is the {thing}?",
            f"What does the {thing} cost?",
            f"How many coins do I need for the {thing}?",
            f"What is the price of the {thing}?",
        )
    )
    return exchange(rng, f"{story} {question}", f"The {thing} costs {cost} coins.")


KINDS: dict[Kind, int] = {
    belongings: 9,
    pets_called: 5,
    whereabouts: 6,
    journeys: 5,
    townsfolk: 5,
    town_notes: 4,
    unknown_town: 2,
    prices: 5,
}
"""Each kind and its weight in the corpus."""
