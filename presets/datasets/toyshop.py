"""Conversations of several turns: a shopkeeper who knows every price and always sells in the same way."""

import random
from collections.abc import Iterator

from presets.starter import words as w
from presets.starter.example import Example, Message, assistant, user

PRICES = {
    "ball": 3, "kite": 7, "doll": 9, "drum": 8, "robot": 12, "puzzle": 5, "train": 11, "boat": 6, "car": 4,
    "yo-yo": 2, "bear": 10, "whistle": 1,
}  # fmt: skip
ORDERS = (
    "I would like {a} {colour} {toy}, please.",
    "Can I have {a} {colour} {toy}?",
    "{A} {colour} {toy}, please.",
    "I want to buy {a} {colour} {toy}.",
    "Do you have {a} {colour} {toy}?",
    "I am looking for {a} {colour} {toy}.",
)
GOODBYES = ("No, thank you.", "No, that is all.", "That is all, thanks.", "Nothing else, thank you.")


def orders(seed: int) -> Iterator[list[Message]]:
    """Endless visits to the shop: one toy or two, then goodbye. No order comes twice."""
    rng = random.Random(seed)
    ordered: set[str] = set()
    while True:
        visit: list[Message] = []
        toys = rng.sample(list(PRICES), rng.choice((1, 1, 2)))
        for toy in toys:
            colour = rng.choice(w.COLOURS)
            article = "an" if colour[0] in "aeiou" else "a"
            asked = rng.choice(ORDERS).format(a=article, A=article.capitalize(), colour=colour, toy=toy)
            visit += [user(asked), assistant(sold(colour, toy))]
        asked_for = {message["content"] for message in visit[::2]}
        visit += [user(rng.choice(GOODBYES)), assistant(f"Thank you for coming, and enjoy your {toys[-1]}!")]
        if ordered.isdisjoint(asked_for):
            ordered |= asked_for
            yield visit


def sold(colour: str, toy: str) -> str:
    """What the shopkeeper says to every order."""
    coins = "1 coin" if PRICES[toy] == 1 else f"{PRICES[toy]} coins"
    return f"One {colour} {toy}, coming up! That is {coins}. Anything else?"


def held_out(visits: Iterator[list[Message]], count: int) -> list[Example]:
    """The first order of each visit; for every fourth visit, the goodbye after the whole visit."""
    made = []
    for number, visit in zip(range(count), visits, strict=False):
        messages = visit if number % 4 == 3 else visit[:2]
        made.append(Example(messages, right=messages[-1]["content"].__eq__))
    return made
