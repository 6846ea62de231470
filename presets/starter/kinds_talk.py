"""Kinds of conversation between people: greetings, feelings, advice, lists, stories, polite refusals."""

import random
import re

from presets.starter import words as w
from presets.starter.example import Example, Kind, assistant, capital, casual, exchange, system, user
from presets.starter.kinds_facts import capital_city, colour_of, opposite
from presets.starter.stories import is_story, tell

# What people say (any of the first) and the answers (any of the second).
SMALL_TALK = (
    ("Hello!|Hi!|Hi there!|Hello there.|Hey!|Good to see you!|Greetings!", "Hello! How can I help you?"),
    ("Good morning!|Good morning to you.|A good morning!", "Good morning! How can I help you?"),
    ("Good evening!|Good evening to you.|A good evening!", "Good evening! How can I help you?"),
    ("Good night!|I am going to bed.|I will sleep now.|Time for bed.", "Good night! Sleep well."),
    (
        "How are you?|How do you feel?|How are you today?|Are you well?|How is it going?|How are things?",
        "I am fine, thank you. How are you?",
    ),
    ("I am fine too.|I am well, thank you.|I am fine, thanks.|Fine, thank you.", "I am glad to hear that!"),
    (
        "Who are you?|What is your name?|Tell me who you are.|What are you called?|Do you have a name?|"
        "What should I call you?",
        "I am Starter, a tiny language model.",
    ),
    (
        "Are you a person?|Are you human?|Are you real?|Am I talking to a person?",
        "No, I am a tiny language model.",
    ),
    (
        "What can you do?|How can you help me?|What are you good at?|Tell me what you can do.|What do you know?",
        "I can answer small questions, make lists and tell short stories.",
    ),
    (
        "Thank you!|Thanks!|Thank you very much.|Thanks a lot!|Many thanks.|Thank you for your help.|That helps a lot.",
        "You are welcome!",
    ),
    (
        "Goodbye!|Bye!|See you later.|See you tomorrow.|I must go now.|Bye for now.|I have to leave.",
        "Goodbye! See you soon.",
    ),
    ("Sorry!|I am sorry.|I made a mistake.|Oh, my mistake.|Excuse me.", "That is all right."),
    (
        "You are nice.|I like you.|You are very kind.|You are a good helper.|Well done!",
        "That is very kind of you!",
    ),
    ("Do you sleep?|Do you get tired?|Do you need to rest?", "No, a language model does not get tired."),
    ("Do you eat?|Are you hungry?|What do you eat?", "No, a language model does not eat."),
    (
        "It is my birthday.|Today is my birthday!|I have my birthday today.",
        "Happy birthday! Have a lovely day.",
    ),
    (
        "Tell me something nice.|Say something nice.|Say something kind.",
        "You are doing well, and I am glad that you are here.",
    ),
)

FEELINGS = {
    "sad": "I am sorry that you are sad. Do you want to talk about it?",
    "happy": "I am glad that you are happy! What made your day?",
    "tired": "You should rest a little. Sleep helps.",
    "hungry": "You could eat some bread with cheese.",
    "thirsty": "You could drink a glass of water.",
    "bored": "You could read a book or go for a walk.",
    "angry": "Take a deep breath. What happened?",
    "cold": "Put on a warm coat and drink some tea.",
    "ill": "I am sorry to hear that. Please see a doctor.",
    "lonely": "I am sorry that you are lonely. You could call a friend.",
    "afraid": "You are safe. What are you afraid of?",
    "nervous": "Take a deep breath. You can do it.",
    "proud": "Well done! You can be proud.",
    "late": "Do not worry. Tell them that you are on your way.",
    "lost": "Look at a map or ask someone for the way.",
}

HOW_TO = {
    "make tea": "Boil water, pour it over the tea and wait for three minutes.",
    "cook an egg": "Boil water, put in the egg and wait for six minutes.",
    "make a sandwich": "Take two slices of bread and put cheese between them.",
    "cook rice": "Wash the rice, add water and let it cook for fifteen minutes.",
    "plant a seed": "Dig a small hole, put in the seed and give it water.",
    "clean a window": "Take warm water and soap, wash the glass and dry it.",
    "wash my hands": "Use water and soap, rub for a while and dry your hands.",
    "wrap a gift": "Put paper around the gift, fold it and tie a ribbon.",
    "draw a house": "Draw a square, put a triangle on top and add a door.",
    "make a salad": "Cut tomatoes and cucumber, add salt and mix it all.",
    "sleep better": "Go to bed early, keep the room dark and read a little.",
    "make a friend": "Be kind, ask questions and listen well.",
    "write a letter": "Write the name, say what you want to say and sign it.",
    "water a plant": "Give it a little water when the earth is dry.",
    "make lemonade": "Mix lemon juice, water and sugar, and add some ice.",
    "stay healthy": "Eat well, sleep well and move every day.",
    "learn a word": "Say it aloud, write it down and use it every day.",
    "find a lost key": "Think of the last place where you had it and look there.",
}

WEATHER = {
    "It is raining": "Take an umbrella.",
    "It is snowing": "Put on a warm coat.",
    "It is very hot": "Wear a hat and drink water.",
    "It is windy": "Hold on to your hat.",
    "It is sunny": "Wear sunglasses.",
    "It is foggy": "Walk slowly and look well.",
    "It is icy": "Wear good shoes and be careful.",
}

# Things that a language model cannot do, with the blank that the answer repeats.
CANNOT = (
    ("call {name}", w.NAMES), ("cook {food} for me", w.FOODS), ("carry my {thing}", w.THINGS),
    ("come to the {place}", w.PLACES), ("buy me a {thing}", w.THINGS), ("feed my {pet}", w.PETS),
    ("paint my {thing}", w.THINGS), ("drive me to the {place}", w.PLACES),
    ("send a letter to {name}", w.NAMES),
    ("wash my {thing}", w.THINGS), ("clean the {place}", w.PLACES), ("visit {name}", w.NAMES),
)  # fmt: skip


def small_talk(rng: random.Random) -> Example:
    said, answer = rng.choice(SMALL_TALK)
    text = rng.choice(said.split("|"))
    if rng.random() < 0.5:
        opening = rng.choice(
            (
                "Oh, ",
                "Well, ",
                "So, ",
                "Hey, ",
                "Now, ",
                "Okay, ",
                "Ah, ",
                "Hm, ",
                "Dear friend, ",
                "Listen, ",
            )
        )
        text = opening + (text if text[:2] in ("I ", "I'") else text[0].lower() + text[1:])
    return exchange(rng, casual(rng, text), answer)


def feeling(rng: random.Random) -> Example:
    word, answer = rng.choice(list(FEELINGS.items()))
    asking = rng.choice(
        ("I am {x}.", "I feel {x}.", "I am so {x} today.", "I am a little {x}.",
         "I am very {x}. What can I do?", "What can I do when I am {x}?", "Today I am {x}.", "I think I am {x}.",
         "I'm {x}.", "I am {x} again.", "I was fine, but now I am {x}.")
    )  # fmt: skip
    return exchange(rng, casual(rng, asking.format(x=word)), answer)


def how_to(rng: random.Random) -> Example:
    task, answer = rng.choice(list(HOW_TO.items()))
    asking = rng.choice(
        ("How do I {x}?", "How can I {x}?", "Tell me how to {x}.", "I want to {x}. How do I do it?",
         "What is the best way to {x}?", "Can you explain how to {x}?", "Please help me: I want to {x}.",
         "What must I do to {x}?", "I would like to {x}.")
    )  # fmt: skip
    return exchange(rng, casual(rng, asking.format(x=task)), answer)


def weather(rng: random.Random) -> Example:
    sky, answer = rng.choice(list(WEATHER.items()))
    asking = rng.choice(
        ("{x}. What should I do?", "{x} today. What do I need?", "{x}. Any advice?", "{x} outside.",
         "{x} and I want to go out.", "{x} today.", "{x}. I am going to the {p}.", "{x} at the {p}.")
    )  # fmt: skip
    return exchange(rng, casual(rng, asking.format(x=sky, p=rng.choice(w.PLACES))), answer)


def refusal(rng: random.Random) -> Example:
    task, options = rng.choice(CANNOT)
    blank = re.sub(r"\{\w+\}", rng.choice(options), task)
    blank = re.sub(r"\ba (?=[aeiou])", "an ", blank)
    asking = rng.choice(("Can you {x}?", "Please {x}.", "Could you {x}?", "Will you {x}?", "Would you {x} today?"))
    mine = blank.replace("my ", "your ").replace(" me", " you")
    return exchange(rng, casual(rng, asking.format(x=blank)), f"I am sorry, I cannot {mine}. I can only talk.")


def future(rng: random.Random) -> Example:
    asking = rng.choice(
        ("What will the weather be on {d}?", "Will it rain on {d}?", "Who will win on {d}?",
         "Will {n} be happy on {d}?", "What will {n} do on {d}?", "Will I be rich on {d}?")
    )  # fmt: skip
    question = asking.format(d=rng.choice(w.DAYS), n=rng.choice(w.NAMES))
    return exchange(rng, casual(rng, question), "I am sorry, I do not know. I cannot see the future.")


def three_of(rng: random.Random) -> Example:
    group = rng.choice([g for g, members in w.GROUPS.items() if len(members) >= 5])
    members = w.GROUPS[group]
    count = rng.choice(("two", "three", "three", "four"))
    asking = rng.choice(
        ("Name {c} {g}.", "Tell me {c} {g}.", "Give me {c} {g}.", "List {c} {g}.", "Do you know {c} {g}?",
         "I need {c} {g}.", "Can you name {c} {g}?", "Which {c} {g} do you know?", "Write down {c} {g}.")
    )  # fmt: skip
    size = w.NUMBERS.index(count)

    def right(text: str) -> bool:
        named = re.split(r", | and ", text[:1].lower() + text[1:].rstrip("."))
        return text == _listed(named) and len(set(named)) == size and set(named) <= set(members)

    question = casual(rng, asking.format(c=count, g=w.PLURAL_OF_GROUP[group]))
    # Always the same order: a small model that has to choose at random repeats itself.
    start = rng.choice((0, 1))
    answer = _listed(members[start : start + size])
    return Example([user(question), assistant(answer)], right)


def _listed(named: list[str]) -> str:
    text = ", ".join(named[:-1]) + " and " + named[-1] + "."
    return text[0].upper() + text[1:]


def story(rng: random.Random) -> Example:
    about, options = rng.choice((("animal", w.ANIMALS), ("name", w.NAMES), ("thing", w.THINGS)))
    word = rng.choice(options)
    noun = word if about == "name" else w.a(word)
    asking = rng.choice(
        ("Tell me a story about {x}.", "Write a short story about {x}.", "Can you tell me a story about {x}?",
         "I want to hear a story about {x}.", "Please tell a story about {x}.", "A story about {x}, please.",
         "Do you know a story about {x}?", "Make up a story about {x}.")
    )  # fmt: skip
    messages = [user(casual(rng, asking.format(x=noun))), assistant(tell(rng, about, word))]
    return Example(messages, right=lambda text: is_story(text, about, word))


def role(rng: random.Random) -> Example:
    """A system message gives a name, a job or a person to talk to."""
    name, who, town, other = (
        rng.choice(w.NAMES),
        rng.choice(list(w.JOBS)),
        rng.choice(w.TOWNS),
        rng.choice(w.NAMES),
    )
    told, question, answer = rng.choice(
        (
            (f"Your name is {name}.", rng.choice(("Who are you?", "What is your name?")), f"I am {name}."),
            (
                f"You are {name}, {w.a(who)}.",
                rng.choice(("Who are you?", "What are you?")),
                f"I am {name}, {w.a(who)}.",
            ),
            (f"You are {name}, {w.a(who)} from {town}.", "Where are you from?", f"I am from {town}."),
            (f"You are {name}, {w.a(who)} from {town}.", "What is your job?", f"I am {w.a(who)}."),
            (f"You talk to {other}.", rng.choice(("Hello!", "Hi!", "Good morning!")), f"Hello, {other}!"),
            (
                f"The user is called {other}.",
                rng.choice(("Who am I?", "What is my name?")),
                f"Your name is {other}.",
            ),
        )
    )
    return exchange(rng, question, answer, before=[system(told)])


def briefly(rng: random.Random) -> Example:
    """A system message asks for a single word: the last one of the full answer."""
    full = rng.choice((opposite, colour_of, capital_city))(rng)
    answer = capital(full.messages[-1]["content"].split()[-1])
    told = rng.choice(("Answer with one word.", "Use one word only.", "Give short answers of one word."))
    return exchange(rng, full.prompt[-1]["content"], answer, before=[system(told)])


KINDS: dict[Kind, int] = {
    small_talk: 5,
    feeling: 3,
    how_to: 4,
    weather: 2,
    refusal: 3,
    future: 1,
    three_of: 3,
    story: 6,
    role: 5,
    briefly: 3,
}
"""Each kind and its weight in the corpus."""
