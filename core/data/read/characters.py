"""East Asian text by its characters: how common those are that an encoding makes of it."""

import math
from functools import cache

# The most frequent characters of running text in each language; together they are half of it or more.
KOREAN = frozenset(
    "이다는을에의가고하지은로기도한사를리어자인아시대나해서그들정있일보스라수과만부제여전장지상주원게구용동거비조화면것무니선성오적안등"
    "우유신국년요중생문관경발소내회분실방와르치때입야말행세않없까했었습네데러며터및위각모학되된될할겠같냐녕떤떻려록못바받써알왜저좋줘줄"
)
CHINESE = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学"
    "如都同现当没动面起看定天分还进好小部其些主样理心本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将"
    "两高间由问很最重并物手应向头文体政美相见被利什二等产或新己制身果加西月话合回特代内信表化老给世位次度门任常先海通教儿东提立及比员解"
    "水名真论处走义各入几口认条系气题更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计请吗您谢怎哪让，。？！、：；（）“”《》"
)
TRADITIONAL = frozenset(
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家種事成方多經麼去法學"
    "如都同現當沒動面起看定天分還進好小部其些主樣理心本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將"
    "兩高間由問很最重並物手應向頭文體政美相見被利什二等產或新己制身果加西月話合回特代內信表化老給世位次度門任常先海通教兒東提立及比員解"
    "水名真論處走義各入幾口認條系氣題更別打女變四神總何電數安少報才結反受目太量再感建務做接必場件計請嗎您謝怎哪讓台灣，。？！、：；「」（）《》"
)
_KANA = frozenset(map(chr, [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)])) | frozenset("ー、。・「」！？（）")
JAPANESE = _KANA | frozenset(
    "日一人大年出本中国会事者東学生時分自上行同社見方場間前今手後新地部気下思水私高入理合話月言電長体何度心小家内対発食来車物明立"
    "動金性山開文書力意定正女子用外通先目北朝所名当主近世連意強朝持信番道全教語知美好天安空花"
)
_OTHER = -13.0  # of a character that the encoding has and hardly anybody writes
_ASCII = -4.5  # of a letter of English within a run of others
# codec: its common characters and how likely all of them are, and by which older one it is known what is not rare.
_KNOWN = {
    "cp949": (KOREAN, 0.6, "euc_kr", 0xC9),
    "gb18030": (CHINESE, 0.6, "gb2312", 0xD8),
    "big5hkscs": (TRADITIONAL, 0.6, "big5", 0xC9),
    "cp932": (JAPANESE, 0.8, "euc_jp", 0xD0),
    "euc_jis_2004": (JAPANESE, 0.8, "euc_jp", 0xD0),
}


@cache
def score_of(letter: str, codec: str) -> float:
    """The log of how likely `letter` is in the text that comes in `codec`."""
    common, share, older, rare_from = _KNOWN[codec]
    if letter < "\x80":
        return _ASCII
    if letter in common:
        return math.log(share / len(common))
    try:
        raw = letter.encode(older)
    except UnicodeEncodeError:
        return _OTHER
    if len(raw) != 2 or raw[0] >= rare_from:  # the second level, and half-width signs
        return _OTHER
    return math.log((1 - share) * 0.9 / 3000)


def common_in(text: str, codec: str) -> int:
    """How many of the characters are common ones."""
    common = _KNOWN[codec][0]
    return sum(letter in common for letter in text)
