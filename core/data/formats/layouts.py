"""The dataset layouts, in the order of the menu. A new one is a file here and an entry in LAYOUTS."""

from core.data.formats.markers import GUANACO, TEXT
from core.data.formats.pairs import ALPACA, DOLLY, PROMPT_COMPLETION, QUESTION_ANSWER
from core.data.formats.preference import KTO, PREFERENCE
from core.data.formats.turns import MESSAGES, SHAREGPT

# Of two that a row shows, the more particular stands first: Dolly before Alpaca, a question before any prompt.
LAYOUTS = (MESSAGES, SHAREGPT, DOLLY, ALPACA, QUESTION_ANSWER, PROMPT_COMPLETION, PREFERENCE, KTO, GUANACO, TEXT)
# In the order in which they are recognised.
BY_PRECEDENCE = tuple(sorted(LAYOUTS, key=lambda layout: not layout.takes_precedence))
# What `data.format` may be, with its label on the screen.
FORMATS = {
    "auto": "Auto (detect)",
    **{layout.name: layout.label for layout in LAYOUTS},
    "mapping": "Mapped columns",
}
