"""Kinds of conversation that copy words from the prompt: repeating, listing, filling forms, remembering."""

import random

from presets.starter import words as w
from presets.starter.example import Example, Kind, assistant, capital, casual, exchange, user

NOUNS = sorted(set(w.THINGS + w.ANIMALS + w.PLACES + w.FOODS + w.TOWN_THINGS + w.EVENTS))


def phrase(rng: random.Random) -> str:
    """A few words to copy: they make no sense, but every noun gets its turn."""
    shapes = (
        lambda: f"the {rng.choice(w.COLOURS)} {rng.choice(NOUNS)}",
        lambda: f"the {rng.choice(NOUNS)} and the {rng.choice(NOUNS)}",
        lambda: f"the {rng.choice(w.THINGS)} is {rng.choice(w.SPOTS)}",
        lambda: f"{rng.choice(w.NAMES)} from {rng.choice(w.TOWNS)}",
        lambda: f"one {rng.choice(w.THINGS)}, two {rng.choice(sorted(w.PLURALS.values()))}",
        lambda: f"{rng.choice(w.NAMES)} the {rng.choice(list(w.JOBS))} {rng.choice(sorted(w.PASTS.values()))}",
        lambda: " ".join(rng.sample(LEXICON, rng.randint(2, 3))),
    )
    return rng.choice(shapes)()


SAYINGS = w.pieces(
    "ahoy matey|arr, me hearty|aye aye, captain|the treasure be here|ye be a good friend|yer ship be ready|"
    "all is well|home sweet home|once upon a time|happy birthday|good morning, sunshine|welcome aboard|"
    "coming up|anything else|have a lovely day|that will be five coins|see you soon|well done|"
    "aye, it be the sea|me hearty, ye be late|ahoy, yer coat be wet|the wind be strong, matey|"
    "enjoy your day|nothing else, thank you|anything else, my friend|arr, what a day|"
    "arr! that be good news, matey|"
    "enjoy the festival|welcome to the toy shop|thank you for coming|one ball, coming up|"
    "near the church|behind the castle|the visitor and the owner|answer the visitor|so it belongs to me|"
    "the market is on Friday|the concert is in the square|the dance is at the school|the fair by the lake|"
    "the old church on the hill|the clock tower of the town|the mayor of the village|the boat race on Sunday"
)

LEXICON = sorted(
    {
        word
        for source in (
            *(text.split() for text in NOUNS), w.COLOURS, w.NAMES, w.TOWNS, w.JOBS, w.PASTS, w.PASTS.values(),
            w.OPPOSITES, w.DAYS,
            w.MONTHS, w.NUMBERS, w.BABIES.values(), w.PLURALS.values(), *w.GROUPS.values(),
            *(text.replace(",", "").split() for text in SAYINGS),
            *(text.rstrip(".").split() for text in w.MEANINGS.values()),
            *(text.split() for text in (*w.JOBS.values(), *w.USES.values(), *w.HOMES.values())),
        )
        for word in source
    }
)  # fmt: skip


def repeating(rng: random.Random) -> Example:
    text = phrase(rng) if rng.random() < 0.75 else rng.choice(SAYINGS)
    asking = rng.choice(
        (
            "Say: {x}",
            "Repeat after me: {x}",
            "Please say: {x}",
            "Repeat: {x}",
            "Write this again: {x}",
            "Copy this: {x}",
        )
    )
    return exchange(rng, asking.format(x=text), capital(text) + ".")


def shopping_list(rng: random.Random) -> Example:
    items = rng.sample(w.FOODS, rng.randint(2, 3))
    sentence = ", ".join(items[:-1]) + " and " + items[-1]
    asking = rng.choice(
        (
            "I need {x}. Make a list.",
            "Write a shopping list: {x}.",
            "Make a list of {x}.",
            "Please list {x} for me.",
        )
    )
    return exchange(rng, asking.format(x=sentence), "\n".join(f"- {item}" for item in items))


def form(rng: random.Random) -> Example:
    """A few words put into a form: a label or a little JSON."""
    name, age, town = rng.choice(w.NAMES), rng.randint(5, 20), rng.choice(w.TOWNS)
    who = rng.choice(list(w.JOBS))
    if rng.random() < 0.5:
        fact, value = rng.choice(
            (
                ("age", age),
                ("town", f'"{town}"'),
                ("job", f'"{who}"'),
                ("owner", f'"{rng.choice(w.NAMES)}"'),
                ("pet", f'"{rng.choice(w.PETS)}"'),
                ("colour", f'"{rng.choice(w.COLOURS)}"'),
            )
        )
        asking = rng.choice(
            (
                "Write this as JSON: name {n}, {k} {v}.",
                "Make JSON with name {n} and {k} {v}.",
                "JSON, please: name {n}, {k} {v}.",
            )
        )
        bare = str(value).strip('"')
        return exchange(rng, asking.format(n=name, k=fact, v=bare), f'{{"name": "{name}", "{fact}": {value}}}')
    asking = rng.choice(
        ("Write a label for {n} from {t}.", "Make a label: {n} from {t}.", "{n} lives in {t}. Write a label.")
    )
    return exchange(rng, asking.format(n=name, t=town), f"Name: {name}\nTown: {town}")


def polite(rng: random.Random) -> Example:
    verb, rest = rng.choice(
        (("give me", f"the {rng.choice(w.THINGS)}"), ("bring me", f"some {rng.choice(w.FOODS)}"),
         ("show me", f"the {rng.choice(w.PLACES)}"), ("help", rng.choice(w.NAMES)),
         ("find", f"my {rng.choice(w.THINGS)}"), ("wait for", rng.choice(w.NAMES)))
    )  # fmt: skip
    asking = rng.choice(
        (
            "Say this politely: {x}.",
            "Make this polite: {x}.",
            "How do I say this politely: {x}?",
            "Make it friendly: {x}.",
        )
    )
    return exchange(rng, asking.format(x=f"{verb} {rest}"), f"Could you please {verb} {rest}?")


def negation(rng: random.Random) -> Example:
    name = rng.choice(w.NAMES)
    positive, negative = rng.choice(
        (("likes", "does not like"), ("eats", "does not eat"), ("buys", "does not buy"),
         ("wants", "does not want"),         ("needs", "does not need"), ("sells", "does not sell"))
    )  # fmt: skip
    food = rng.choice(w.FOODS)
    asking = rng.choice(("Say the opposite: {x}.", "Make it negative: {x}.", "That is wrong: {x}. Say it right."))
    return exchange(rng, asking.format(x=f"{name} {positive} {food}"), f"{name} {negative} {food}.")


def sentence_with(rng: random.Random) -> Example:
    if rng.random() < 0.5:
        word, ends = (
            rng.choice(w.ANIMALS),
            ("is in the garden.", "sleeps under the tree.", "looks at the moon."),
        )
    else:
        word, ends = rng.choice(w.THINGS), ("is on the table.", "is very old.", "is a gift from my friend.")
    asking = rng.choice(
        ("Write a sentence with the word {x}.", "Make a sentence with {x}.", "Use {x} in a sentence.",
         "Can you write a sentence with {x}?", "Give me a short sentence about {x}.")
    )  # fmt: skip
    return exchange(rng, casual(rng, asking.format(x=f"'{word}'")), [f"The {word} {end}" for end in ends])


def statement(rng: random.Random) -> Example:
    """Somebody says something about themselves, and the reply takes it up."""
    thing, colour, place, food = (rng.choice(x) for x in (w.THINGS, w.COLOURS, w.PLACES, w.FOODS))
    pet, name = rng.choice(w.PETS), rng.choice(w.NAMES)
    text, answer = rng.choice(
        (
            (f"I have {w.a(colour)} {thing}.", f"{capital(w.a(colour))} {thing} sounds lovely!"),
            (f"I went to the {place} today.", f"How was it at the {place}?"),
            (f"I like {food}.", f"Many people like {food}. Do you have {food} often?"),
            (f"My {pet} is called {name}.", f"{name} is a nice name for {w.a(pet)}!"),
            (f"I lost my {thing}.", f"I am sorry about your {thing}. I hope that you find it soon."),
            (f"I am looking for my {thing}.", f"Where did you last see your {thing}?"),
            (f"I met {name} at the {place}.", f"Did you have a good time with {name}?"),
            (f"{name} has {w.a(colour)} {pet}.", f"{capital(w.a(colour))} {pet} sounds lovely!"),
            (f"{name} is my best friend.", f"It is good to have a friend like {name}."),
            (f"I bought {w.a(thing)}.", f"A new {thing} is a nice thing to have!"),
            (
                f"I want to be {w.a(j := rng.choice(list(w.JOBS)))}.",
                f"{capital(w.a(j))} {w.JOBS[j]}. That is a fine job!",
            ),
        )
    )
    return exchange(rng, text, answer)


def introduction(rng: random.Random) -> Example:
    name = rng.choice(w.NAMES)
    asking = rng.choice(
        ("My name is {x}.", "Hello, I am {x}.", "Hi, my name is {x}.", "I am {x}.", "Hello! My name is {x}.",
         "Good morning, I am {x}.", "You can call me {x}.", "Hi, I'm {x}. Nice to meet you.")
    )  # fmt: skip
    return exchange(rng, asking.format(x=name), f"Hello, {name}! It is nice to meet you.")


def remembering(rng: random.Random) -> Example:
    """Something said first and asked about later, in one conversation."""
    name, pet, food = rng.choice(w.NAMES), rng.choice(w.PETS), rng.choice(w.FOODS)
    called = rng.choice([n for n in w.NAMES if n != name])
    greet = [user(f"My name is {name}."), assistant(f"Hello, {name}! It is nice to meet you.")]
    animal = [user(f"My {pet} is called {called}."), assistant(f"{called} is a nice name for {w.a(pet)}!")]
    likes = [user(f"I like {food}."), assistant(f"Many people like {food}. Do you have {food} often?")]
    question, answer, told = rng.choice(
        (
            ("What is my name?", f"Your name is {name}.", greet),
            ("Do you remember my name?", f"Your name is {name}.", greet),
            (f"What is my {pet} called?", f"Your {pet} is called {called}.", animal),
            ("What do I like?", f"You like {food}.", likes),
        )
    )
    others = [turns for turns in (greet, animal, likes) if turns is not told]
    turns = [told, *rng.sample(others, rng.randint(0, 2))]
    rng.shuffle(turns)
    return exchange(rng, question, answer, before=[message for pair in turns for message in pair])


KINDS: dict[Kind, int] = {
    repeating: 9,
    shopping_list: 3,
    form: 4,
    polite: 2,
    negation: 2,
    sentence_with: 3,
    statement: 6,
    introduction: 3,
    remembering: 4,
}
"""Each kind and its weight in the corpus."""
