"""Kinds of conversation about plain facts: opposites, colours, animals, words, days and small numbers."""

import random

from presets.starter import words as w
from presets.starter.example import Example, Kind, casual, exchange


def _fact(rng: random.Random, phrasings: str, answer: str, **slots: str) -> Example:
    """One of the `|`-separated phrasings, filled with `slots`, and the only right answer."""
    question = rng.choice(phrasings.split("|")).format(**slots)
    return exchange(rng, casual(rng, question), answer)


def opposite(rng: random.Random) -> Example:
    word, other = rng.choice(list(w.OPPOSITES.items()))
    phrasings = (
        "What is the opposite of {x}?|Tell me the opposite of {x}.|Which word is the opposite of {x}?|"
        "Give me the opposite of '{x}'.|What is the opposite of the word {x}?|"
        "Do you know the opposite of {x}?|Name the opposite of {x}."
    )
    return _fact(rng, phrasings, f"The opposite of {word} is {other}.", x=word)


def colour_of(rng: random.Random) -> Example:
    thing, colour = rng.choice(list(w.COLOUR_OF.items()))
    phrasings = (
        "What colour is {x}?|Tell me the colour of {x}.|Which colour is {x}?|Do you know what colour {x} is?|"
        "What is the colour of {x}?|Can you tell me the colour of {x}?|What colour does {x} have?"
    )
    return _fact(rng, phrasings, f"{thing[0].upper()}{thing[1:]} is {colour}.", x=thing)


def use_of(rng: random.Random) -> Example:
    thing, use = rng.choice(list(w.USES.items()))
    verb = "are" if thing == "glasses" else "is"
    does = "do" if thing == "glasses" else "does"
    phrasings = (
        f"What {verb} {{x}} used for?|What can I do with {{x}}?|What {verb} {{x}} for?|"
        f"Why do people need {{x}}?|What do people use {{x}} for?|What {does} {{x}} help us do?|"
        f"How do people use {{x}}?"
    )
    return _fact(rng, phrasings, f"You use {thing} to {use}.", x=thing)


def sound(rng: random.Random) -> Example:
    animal, noise = rng.choice(list(w.SOUNDS.items()))
    phrasings = (
        "What does {x} say?|What sound does {x} make?|Which sound does {x} make?|"
        "Tell me the sound of {x}.|How does {x} sound?|What noise does {x} make?|"
        "Which animal sound does {x} make?"
    )
    return _fact(rng, phrasings, f"{w.a(animal).capitalize()} says {noise}.", x=w.a(animal))


def home(rng: random.Random) -> Example:
    animal, place = rng.choice(list(w.HOMES.items()))
    phrasings = (
        "Where does {x} live?|Where is the home of {x}?|Tell me where {x} lives.|"
        "In what place does {x} live?|"
        "Do you know where {x} lives?|Where can I find the home of {x}?|Where does {x} make its home?"
    )
    return _fact(rng, phrasings, f"{w.a(animal).capitalize()} lives {place}.", x=w.a(animal))


def baby(rng: random.Random) -> Example:
    animal, young = rng.choice(list(w.BABIES.items()))
    phrasings = (
        "What is a baby {x} called?|What do you call a baby {x}?|What is a young {x} called?|"
        "Tell me the name for a baby {x}.|What is the word for a baby {x}?|"
        "What name is there for a young {x}?|"
        "Which word means a baby {x}?"
    )
    return _fact(rng, phrasings, f"A baby {animal} is called {w.a(young)}.", x=animal)


def legs(rng: random.Random) -> Example:
    animal, count = rng.choice(list(w.LEGS.items()))
    phrasings = (
        "How many legs does {x} have?|Tell me how many legs {x} has.|How many legs has {x} got?|"
        "What number of legs does {x} have?|Do you know how many legs {x} has?|Can you count the legs of {x}?"
    )
    return _fact(rng, phrasings, f"{w.a(animal).capitalize()} has {count} legs.", x=w.a(animal))


def job(rng: random.Random) -> Example:
    who, work = rng.choice(list(w.JOBS.items()))
    if rng.random() < 0.5:
        phrasings = (
            "What does {x} do?|What is the work of {x}?|Tell me what {x} does.|What does {x} do all day?|"
            "What kind of work does {x} do?|Do you know what {x} does?|What is the job of {x}?"
        )
        return _fact(rng, phrasings, f"{w.a(who).capitalize()} {work}.", x=w.a(who))
    phrasings = (
        "Who {x}?|What do you call a person who {x}?|Which person {x}?|Tell me who {x}.|"
        "What is the name for someone who {x}?|Do you know who {x}?"
    )
    return _fact(rng, phrasings, f"{w.a(who).capitalize()} {work}.", x=work)


def capital_city(rng: random.Random) -> Example:
    country, city = rng.choice(list(w.CAPITALS.items()))
    phrasings = (
        "What is the capital of {x}?|Which city is the capital of {x}?|Tell me the capital of {x}.|"
        "Do you know the capital of {x}?|Name the capital of {x}.|What is the capital city of {x}?|"
        "What is {x}'s capital?"
    )
    return _fact(rng, phrasings, f"The capital of {country} is {city}.", x=country)


def plural(rng: random.Random) -> Example:
    one, many = rng.choice(list(w.PLURALS.items()))
    phrasings = (
        "What is the plural of {x}?|One {x}, two what?|Tell me the plural of {x}.|"
        "Which word means more than one {x}?|What do you call more than one {x}?|"
        "Give me the plural of '{x}'.|"
        "How do I write the plural of {x}?"
    )
    return _fact(rng, phrasings, f"One {one}, two {many}.", x=one)


def past(rng: random.Random) -> Example:
    verb, done = rng.choice(list(w.PASTS.items()))
    phrasings = (
        "What is the past of {x}?|Today I {x}. What did I do yesterday?|Tell me the past of '{x}'.|"
        "Put this into the past: I {x}.|How do I say 'I {x}' about yesterday?|What is the past form of {x}?|"
        "Today we {x}. What about yesterday?"
    )
    return _fact(rng, phrasings, f"Today I {verb}, yesterday I {done}.", x=verb)


def meaning(rng: random.Random) -> Example:
    word, answer = rng.choice(list(w.MEANINGS.items()))
    phrasings = (
        "What does '{x}' mean?|What is the meaning of '{x}'?|I read '{x}' in a book. What does it mean?|"
        "Tell me what '{x}' means.|Can you explain '{x}'?|Someone said '{x}'. What is that?|"
        "Explain '{x}', please."
    )
    return _fact(rng, phrasings, answer, x=word)


def sailor_words(rng: random.Random) -> Example:
    word, said = rng.choice(list(w.SAILOR_WORDS.items()))
    phrasings = (
        "How does a sailor say '{x}'?|What do sailors say for '{x}'?|What is '{x}' in sailor talk?|"
        "Which word does a sailor use for '{x}'?|Tell me how sailors say '{x}'.|"
        "How do I say '{x}' like a sailor?|"
        "Put '{x}' into sailor talk."
    )
    return _fact(rng, phrasings, f"For '{word}' a sailor says '{said}'.", x=word)


def group_of(rng: random.Random) -> Example:
    group = rng.choice(list(w.GROUPS))
    word = rng.choice(w.GROUPS[group])
    thing = word if group in ("colour", "drink") else w.a(word)
    subject = thing.capitalize()
    if rng.random() < 0.5 and word not in ("orange", "duck", "hen", "goose"):
        phrasings = (
            "What is {x}?|What kind of thing is {x}?|Tell me what {x} is.|Do you know what {x} is?|"
            "What sort of thing is {x}?|Please explain what {x} is."
        )
        return _fact(rng, phrasings, f"{subject} is {w.a(group)}.", x=thing)
    other = rng.choice([g for g in w.GROUPS if word not in w.GROUPS[g]])
    if {group, other} == {"animal", "bird"} or word == "orange":
        other = "tool"
    asked, answer = (
        (group, f"Yes, {thing} is {w.a(group)}.")
        if rng.random() < 0.5
        else (other, f"No, {thing} is {w.a(group)}, not {w.a(other)}.")
    )
    phrasings = "Is {x} {y}?|Would you say that {x} is {y}?|Is it true that {x} is {y}?|Do you think {x} is {y}?"
    return _fact(rng, phrasings, answer, x=thing, y=w.a(asked))


def day(rng: random.Random) -> Example:
    index = rng.randrange(7)
    today = w.DAYS[index]
    if rng.random() < 0.5:
        phrasings = (
            "Which day comes after {x}?|What day is after {x}?|Today is {x}. What day is tomorrow?|"
            "What is the day after {x}?|It is {x} today. Which day comes next?|Tell me the day after {x}.|"
            "If today is {x}, what day is tomorrow?"
        )
        return _fact(rng, phrasings, f"The day after {today} is {w.DAYS[(index + 1) % 7]}.", x=today)
    phrasings = (
        "Which day comes before {x}?|What day is before {x}?|Today is {x}. What day was yesterday?|"
        "What is the day before {x}?|Tell me the day before {x}.|If today is {x}, what day was yesterday?"
    )
    return _fact(rng, phrasings, f"The day before {today} is {w.DAYS[(index - 1) % 7]}.", x=today)


def month(rng: random.Random) -> Example:
    index = rng.randrange(12)
    now = w.MONTHS[index]
    roll = rng.random()
    if roll < 0.34:
        phrasings = (
            "Which month comes after {x}?|What is the month after {x}?|Tell me the month after {x}.|"
            "What month is after {x}?|Which month follows {x}?|It is {x} now. Which month comes next?"
        )
        return _fact(rng, phrasings, f"The month after {now} is {w.MONTHS[(index + 1) % 12]}.", x=now)
    if roll < 0.67:
        phrasings = (
            "Which month comes before {x}?|What is the month before {x}?|Tell me the month before {x}.|"
            "What month is before {x}?|It is {x} now. Which month was before?"
        )
        return _fact(rng, phrasings, f"The month before {now} is {w.MONTHS[(index - 1) % 12]}.", x=now)
    phrasings = (
        "Which season is {x} in?|What season is it in {x}?|Tell me the season of {x}.|"
        "Is {x} in summer or winter?|"
        "In which season is {x}?|What season does {x} belong to?"
    )
    return _fact(rng, phrasings, f"{now} is in {w.SEASON_OF[now]}.", x=now)


def addition(rng: random.Random) -> Example:
    x, y = rng.randint(0, 10), rng.randint(0, 10)
    phrasings = (
        "What is {x} plus {y}?|How much is {x} plus {y}?|Add {x} and {y}.|"
        "What do I get when I add {x} and {y}?|"
        "What is {x} + {y}?|Can you add {x} and {y}?|Please add {x} and {y} for me."
    )
    return _fact(rng, phrasings, f"{x} plus {y} is {x + y}.", x=str(x), y=str(y))


def subtraction(rng: random.Random) -> Example:
    x = rng.randint(0, 10)
    y = rng.randint(0, x)
    phrasings = (
        "What is {x} minus {y}?|How much is {x} minus {y}?|Take {y} away from {x}.|"
        "What do I get when I take {y} from {x}?|What is {x} - {y}?|Can you take {y} away from {x}?"
    )
    return _fact(rng, phrasings, f"{x} minus {y} is {x - y}.", x=str(x), y=str(y))


def next_number(rng: random.Random) -> Example:
    x = rng.randint(1, 19)
    if rng.random() < 0.5:
        phrasings = (
            "Which number comes after {x}?|What number is after {x}?|Tell me the number after {x}.|"
            "What comes after {x}?|Which number follows {x}?|I count to {x}. What comes next?"
        )
        return _fact(rng, phrasings, f"After {w.NUMBERS[x]} comes {w.NUMBERS[x + 1]}.", x=w.NUMBERS[x])
    phrasings = (
        "Which number comes before {x}?|What number is before {x}?|Tell me the number before {x}.|"
        "What comes before {x}?|What is one less than {x}?"
    )
    return _fact(rng, phrasings, f"Before {w.NUMBERS[x]} comes {w.NUMBERS[x - 1]}.", x=w.NUMBERS[x])


def counting(rng: random.Random) -> Example:
    first = rng.randint(1, 14)
    last = rng.randint(first + 2, min(first + 7, 20))
    phrasings = (
        "Count from {x} to {y}.|Can you count from {x} to {y}?|Please count from {x} up to {y}.|"
        "Count for me from {x} to {y}.|What are the numbers from {x} to {y}?|"
        "Give me the numbers from {x} to {y}."
    )
    answer = ", ".join(str(n) for n in range(first, last + 1)) + "."
    return _fact(rng, phrasings, answer, x=str(first), y=str(last))


KINDS: dict[Kind, int] = {
    opposite: 4,
    colour_of: 3,
    use_of: 4,
    sound: 2,
    home: 2,
    baby: 2,
    legs: 2,
    job: 3,
    capital_city: 2,
    plural: 2,
    past: 3,
    meaning: 3,
    sailor_words: 3,
    group_of: 4,
    day: 3,
    month: 3,
    addition: 5,
    subtraction: 3,
    next_number: 2,
    counting: 2,
}
"""Each kind and its weight in the corpus."""
