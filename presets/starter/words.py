"""The starter's small world: the words and plain facts that its conversations are made of."""


def _words(text: str) -> list[str]:
    return text.split()


def pieces(text: str) -> list[str]:
    return text.split("|")


NAMES = _words(
    "Tom Anna Ben Mia Sam Lucy Jack Emma Leo Nora Max Ella Finn Ruby Adam Rosa Omar Lily Hugo Clara Noah Zoe "
    "Ivan Maya Oscar Grace Paul Sara Felix Alice David Julia Peter Mara Henry Eva Luca Holly Martin "
    "Kate Simon "
    "Nina Otto Jane Toby Ada Victor Ivy Bruno Elsa Wren Pip Hazel Rowan Tilda Edgar"
)

COLOURS = _words("red blue green yellow black white brown pink orange purple grey golden silver")

# Every thing can be owned, coloured, lost, found and bought.
THINGS = _words(
    "ball book cup hat box bag key lamp chair table kite boat car train drum doll bell coat shoe scarf spoon "
    "plate bottle pencil ring clock basket blanket candle bike puzzle robot whistle ladder bucket "
    "brush letter "
    "map lantern flag mirror pillow umbrella rope coin truck top yo-yo bear"
)

ANIMALS = _words(
    "dog cat horse cow pig sheep duck hen goat rabbit mouse fox wolf lion tiger bear monkey elephant "
    "frog owl bee "
    "fish bird turtle donkey goose snake parrot hamster squirrel deer hedgehog"
)

# Those that can be owned.
PETS = _words("dog cat rabbit hamster parrot turtle mouse bird fish frog duck goat horse donkey hen goose")

FOODS = _words(
    "bread milk cheese butter rice soup cake honey jam eggs apples bananas carrots potatoes tomatoes grapes "
    "pears onions beans nuts tea juice sugar salt pasta lemons cherries biscuits"
)

PLACES = _words(
    "park school garden kitchen market library forest beach house farm shop river bridge station "
    "hill lake field "
    "village town castle tower mill harbour bakery square garage attic cellar barn island"
)

# Where a thing can be.
SPOTS = pieces(
    "on the table|under the bed|in the box|behind the door|on the chair|in the garden|next to the lamp|"
    "in the kitchen|under the tree|on the shelf|in the bag|beside the river|near the window|in the drawer|"
    "on the roof|in the basket|under the bridge|by the well|in the attic|behind the barn"
)

TOWNS = _words("Oakhollow Millbrook Fernhill Stonebridge Riverton Applewood Foxfield Greenport Snowdale Sandbay")

TOWN_THINGS = pieces(
    "clock tower|old church|town flag|bridge|post coach|school bus|school door|town hall|market gate|old mill"
)
EVENTS = pieces("market|concert|dance|fair|boat race|story hour|town meeting|festival")

JOBS = {
    "baker": "bakes bread",
    "teacher": "teaches children",
    "doctor": "helps sick people",
    "farmer": "grows food",
    "pilot": "flies planes",
    "sailor": "sails ships",
    "painter": "paints pictures",
    "gardener": "looks after plants",
    "cook": "makes meals",
    "singer": "sings songs",
    "builder": "builds houses",
    "writer": "writes books",
    "nurse": "cares for patients",
    "dentist": "looks after teeth",
    "fisherman": "catches fish",
    "postman": "brings letters",
    "firefighter": "puts out fires",
    "tailor": "sews clothes",
    "miller": "grinds flour",
    "shepherd": "watches sheep",
    "vet": "helps sick animals",
    "driver": "drives a bus",
    "dancer": "dances on a stage",
    "carpenter": "works with wood",
    "librarian": "lends books",
    "clockmaker": "repairs clocks",
    "beekeeper": "looks after bees",
    "potter": "makes clay pots",
    "captain": "leads a ship",
    "mayor": "leads a town",
}

_OPPOSITES = (
    "hot cold|big small|fast slow|day night|up down|happy sad|old young|wet dry|hard soft|full empty|"
    "open closed|"
    "light dark|long short|high low|loud quiet|clean dirty|early late|near far|rich poor|strong weak|"
    "thick thin|"
    "left right|good bad|first last|easy difficult|sweet sour|in out|push pull|win lose|buy sell|"
    "give take|start stop|love hate|black white|yes no|before after|always never|front back|"
    "cheap expensive|brave afraid|awake asleep|heavy light|new old|wide narrow|deep shallow|smooth rough"
)
OPPOSITES = {
    word: other
    for pair in _OPPOSITES.split("|")
    for word, other in (pair.split(), pair.split()[::-1])
    if word not in ("light", "old")
} | {"light": "dark", "old": "young"}

COLOUR_OF = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "the sun": "yellow",
    "a banana": "yellow",
    "a tomato": "red",
    "a carrot": "orange",
    "a lemon": "yellow",
    "milk": "white",
    "chocolate": "brown",
    "a frog": "green",
    "a pig": "pink",
    "an elephant": "grey",
    "a cherry": "red",
    "a leaf": "green",
    "the sea": "blue",
    "a cloud": "white",
    "a strawberry": "red",
    "a pea": "green",
    "salt": "white",
    "a polar bear": "white",
    "gold": "yellow",
    "blood": "red",
    "a pumpkin": "orange",
    "a cucumber": "green",
    "a flamingo": "pink",
    "a crow": "black",
    "an orange": "orange",
    "wood": "brown",
}

USES = {
    "a knife": "cut food",
    "a pen": "write",
    "a pencil": "draw",
    "a bed": "sleep",
    "a chair": "sit",
    "a key": "open a door",
    "a spoon": "eat soup",
    "a broom": "sweep the floor",
    "an umbrella": "stay dry in the rain",
    "a lamp": "see in the dark",
    "a clock": "tell the time",
    "a book": "read stories",
    "a phone": "talk to people far away",
    "a hammer": "hit nails",
    "a needle": "sew clothes",
    "a brush": "paint",
    "a boat": "travel on water",
    "a plane": "fly in the air",
    "a bike": "ride to school",
    "an oven": "bake bread",
    "a fridge": "keep food cold",
    "soap": "wash your hands",
    "a towel": "dry your hands",
    "a ladder": "climb up high",
    "a map": "find the way",
    "a camera": "take pictures",
    "a rope": "tie things",
    "a cup": "drink tea",
    "glasses": "see better",
    "a mirror": "look at yourself",
    "a kettle": "boil water",
    "a shovel": "dig a hole",
    "a pillow": "rest your head",
    "a bucket": "carry water",
    "a comb": "tidy your hair",
    "a candle": "make a little light",
    "a bell": "call people",
    "a ruler": "measure things",
}

SOUNDS = {
    "dog": "woof",
    "cat": "meow",
    "cow": "moo",
    "pig": "oink",
    "sheep": "baa",
    "duck": "quack",
    "hen": "cluck",
    "horse": "neigh",
    "lion": "roar",
    "mouse": "squeak",
    "frog": "ribbit",
    "owl": "hoot",
    "bee": "buzz",
    "snake": "hiss",
    "wolf": "howl",
    "bird": "tweet",
    "donkey": "hee-haw",
    "goose": "honk",
}

HOMES = {
    "bird": "in a nest",
    "bee": "in a hive",
    "fish": "in the water",
    "rabbit": "in a burrow",
    "bear": "in a cave",
    "horse": "in a stable",
    "cow": "in a barn",
    "lion": "in the grassland",
    "monkey": "in the trees",
    "fox": "in a den",
    "frog": "near a pond",
    "owl": "in the woods",
    "hen": "in a coop",
    "spider": "in a web",
    "camel": "in the desert",
    "penguin": "on the ice",
    "whale": "in the sea",
    "squirrel": "in a tree",
    "pig": "in a sty",
    "dog": "in a kennel",
}

BABIES = {
    "dog": "puppy",
    "cat": "kitten",
    "cow": "calf",
    "horse": "foal",
    "sheep": "lamb",
    "pig": "piglet",
    "duck": "duckling",
    "hen": "chick",
    "goat": "kid",
    "lion": "cub",
    "frog": "tadpole",
    "goose": "gosling",
    "deer": "fawn",
    "swan": "cygnet",
    "owl": "owlet",
    "kangaroo": "joey",
}

LEGS = {
    "dog": "four",
    "cat": "four",
    "horse": "four",
    "cow": "four",
    "bird": "two",
    "hen": "two",
    "duck": "two",
    "spider": "eight",
    "bee": "six",
    "ant": "six",
    "fish": "no",
    "snake": "no",
    "mouse": "four",
    "owl": "two",
    "fly": "six",
    "worm": "no",
    "lion": "four",
    "goose": "two",
}

CAPITALS = {
    "France": "Paris",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Germany": "Berlin",
    "England": "London",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Poland": "Warsaw",
    "Austria": "Vienna",
    "Portugal": "Lisbon",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Ireland": "Dublin",
    "Canada": "Ottawa",
    "India": "Delhi",
    "Kenya": "Nairobi",
    "Peru": "Lima",
}

PLURALS = {
    "mouse": "mice",
    "child": "children",
    "man": "men",
    "woman": "women",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "sheep": "sheep",
    "fish": "fish",
    "wolf": "wolves",
    "leaf": "leaves",
    "knife": "knives",
    "cat": "cats",
    "dog": "dogs",
    "box": "boxes",
    "bus": "buses",
    "baby": "babies",
    "city": "cities",
    "book": "books",
    "tree": "trees",
    "house": "houses",
    "cherry": "cherries",
    "fox": "foxes",
    "apple": "apples",
    "potato": "potatoes",
    "story": "stories",
}

PASTS = {
    "walk": "walked",
    "play": "played",
    "eat": "ate",
    "go": "went",
    "see": "saw",
    "run": "ran",
    "sing": "sang",
    "swim": "swam",
    "write": "wrote",
    "read": "read",
    "drink": "drank",
    "sleep": "slept",
    "buy": "bought",
    "find": "found",
    "make": "made",
    "give": "gave",
    "take": "took",
    "come": "came",
    "think": "thought",
    "fly": "flew",
    "jump": "jumped",
    "cook": "cooked",
    "draw": "drew",
    "help": "helped",
    "build": "built",
    "drive": "drove",
    "fall": "fell",
    "laugh": "laughed",
    "speak": "spoke",
    "win": "won",
    "wash": "washed",
    "dance": "danced",
}

GROUPS = {
    "fruit": _words("apple banana pear orange lemon grape cherry peach plum strawberry"),
    "vegetable": _words("carrot potato onion bean pea cabbage cucumber pumpkin"),
    "animal": _words("dog cat horse cow lion rabbit elephant fox sheep monkey"),
    "bird": _words("owl duck hen goose crow parrot penguin swan"),
    "colour": _words("red blue green yellow black white brown pink"),
    "drink": _words("milk tea water juice coffee lemonade"),
    "toy": _words("ball doll kite puzzle robot yo-yo"),
    "tool": _words("hammer saw ladder shovel brush"),
    "flower": _words("rose tulip daisy lily sunflower"),
    "vehicle": _words("car bus train bike truck boat"),
    "instrument": _words("piano drum guitar violin flute trumpet"),
}
PLURAL_OF_GROUP = {group: group + "s" for group in GROUPS}

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
SEASON_OF = dict(
    zip(
        MONTHS,
        _words("winter winter spring spring spring summer summer summer autumn autumn autumn winter"),
        strict=True,
    )
)
NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)

# What a word means; the sea words are a first acquaintance with sailors.
MEANINGS = {
    "ahoy": "It is what sailors say for hello.",
    "matey": "It is what sailors call a friend.",
    "aye": "It is an old word for yes.",
    "ye": "It is an old word for you.",
    "yer": "It is an old way to say your.",
    "arr": "It is a sound that pirates make in stories.",
    "treasure": "It is gold and other precious things.",
    "tiny": "It means very small.",
    "huge": "It means very big.",
    "to whisper": "It means to speak very quietly.",
    "to shout": "It means to speak very loudly.",
    "a meadow": "It is a field with grass and flowers.",
    "a harbour": "It is a safe place for ships.",
    "a friend": "It is someone you like and trust.",
    "an orchard": "It is a garden full of fruit trees.",
    "a lantern": "It is a lamp that you can carry.",
    "a festival": "It is a happy day when a town celebrates.",
    "a coin": "It is a small round piece of money.",
    "dawn": "It is the time when the sun comes up.",
    "dusk": "It is the time when the sun goes down.",
}

SAILOR_WORDS = {
    "hello": "ahoy",
    "friend": "matey",
    "my friend": "me hearty",
    "yes": "aye",
    "you": "ye",
    "your": "yer",
    "my": "me",
    "is": "be",
    "are": "be",
    "look": "avast",
    "money": "gold coins",
    "the sea": "the seven seas",
    "you are": "ye be",
    "it is": "it be",
}


def a(noun: str) -> str:
    """`noun` with the article that it takes: a dog, an owl."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
