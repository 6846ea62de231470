"""Tokens as a person reads them: trained ones coloured, white space made visible. Train and Data both draw them."""

import re
from typing import Any

from app.ui.html import number, text

SHOWN_TOKENS = 1500
KEYS = (
    '<span class="nb-keys"><span class="nb-key nb-c-trained"><i></i>trained on</span>'
    '<span class="nb-key nb-c-given"><i></i>context only</span></span>'
)
_BLANK = re.compile(r"[ \n\t\r]")
_VISIBLE = {
    " ": '<i class="nb-space"> </i>',
    "\n": '<i class="nb-newline"></i>\n',
    "\t": '<i class="nb-tab">\t</i>',
    "\r": '<i class="nb-return"></i>',
}


def tokens_html(tokens: list[dict[str, Any]]) -> str:
    """A row token by token, up to SHOWN_TOKENS of them."""
    rest = len(tokens) - SHOWN_TOKENS
    more = f'<p class="nb-muted">… and {number(rest)} more tokens.</p>' if rest > 0 else ""
    return f'<p class="nb-tokens" tabindex="0">{"".join(token(each) for each in tokens[:SHOWN_TOKENS])}</p>{more}'


def token(found: dict[str, Any]) -> str:
    """One token; its white space is made visible by the style sheet, so that copied text stays as it was."""
    shown = _BLANK.sub(lambda blank: _VISIBLE[blank[0]], text(found["text"]))
    kind = "nb-t" if found["trained"] else "nb-r"
    share = f", weight {found['weight']:g}" if "weight" in found else ""
    return f'<span class="{kind}" title="token {text(found["id"])}{share}">{shown}</span>'
