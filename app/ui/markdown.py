"""Markdown of a model or a person, made so that nothing written in it becomes HTML, a picture or a drawing.

The page makes HTML of it by rules of its own, and what it takes for code may differ from what we take for code. So no
raw `<` stays anywhere but in a fence at the left edge that nothing before it can swallow: no list, no title of a
link, no formula, no other fence. Pictures become links, for they would be fetched unasked.
"""

import re
from collections.abc import Iterator
from html import unescape

_FENCE = re.compile(r"([ \t]*)(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)")
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}", re.ASCII)
_TICKS = re.compile(r"(`+)")
_FORMULA = re.compile(r"(\$\$[^$]+\$\$)")
_IN_PROSE = {"&": "&amp;", "<": "&lt;", "![": "&#33;[", "]:": "]&#58;", "$$": "&#36;&#36;", "~~~": "&#126;" * 3}
_ESCAPED = re.compile("|".join(map(re.escape, _IN_PROSE)))
_SIGNS = re.compile(r"[!-/:-@\[-`{-~\x00-\x1f\x7f]")
# What must not stand in code as it is, in case the page takes that for no code.
_RISKY = re.compile(r"<|!\[|\]:|\$\$")
# What is ours in the Markdown that was made, for the way back.
_OURS = re.compile(
    r"^(?P<mark>`{3,})(?P<fence>[\w+#.-]*\n(?:.*?\n)?)(?P=mark)$"
    r"|<pre><code>(?P<lines>[^<]*)</code></pre>|<code>(?P<code>[^<]*)</code>",
    re.DOTALL | re.MULTILINE,
)


def literal(content: str) -> str:
    """Markdown in which HTML is shown as it was written, never run. A fence that is not closed yet is closed."""
    out: list[str] = []
    for fence, lines in _blocks(content.replace("\r\n", "\n").replace("\r", "\n").split("\n")):
        text = "\n".join(lines)
        if fence is None:
            out.append(_prose(text))
        elif fence[1] or "$$" in text:
            code = re.sub(rf"^[ \t]{{0,{len(fence[1])}}}", "", text, flags=re.MULTILINE)
            out.append(f"{fence[1]}<pre><code>{plain(code)}</code></pre>")
        else:
            below_text = bool(out) and out[-1].rpartition("\n")[2].strip()
            out.append(("\n" if below_text else "") + _fenced(fence[3], text if lines else None))
    return "\n".join(out)


def plain(content: str) -> str:
    """Text within Markdown, on one line, in which nothing is Markdown or HTML: a name, code."""
    return _SIGNS.sub(lambda found: f"&#{ord(found[0])};", content)


def as_written(shown: str) -> str:
    """What `literal` made this from, save for a blank line before a fence."""
    parts, end = [], 0
    for found in _OURS.finditer(shown):
        parts += [unescape(shown[end : found.start()]), _written(found)]
        end = found.end()
    return "".join([*parts, unescape(shown[end:])])


def _blocks(lines: list[str]) -> Iterator[tuple[re.Match[str] | None, list[str]]]:
    """(the line that opens a fence, the lines in it), or (None, lines of text)."""
    prose: list[str] = []
    at = 0
    while at < len(lines):
        opened = _FENCE.fullmatch(lines[at])
        if opened is None:
            prose.append(lines[at])
            at += 1
            continue
        if prose:
            yield None, prose
            prose = []
        closes = re.compile(rf"[ \t]*{opened[2][0]}{{{len(opened[2])},}}[ \t]*")
        end = next((line for line in range(at + 1, len(lines)) if closes.fullmatch(lines[line])), len(lines))
        yield opened, lines[at + 1 : end]
        at = end + 1
    if prose:
        yield None, prose


def _fenced(info: str, text: str | None) -> str:
    """A fence that can neither end early nor be drawn: its mark is longer than any in it."""
    mark = "`" * max([3, *(len(ticks) + 1 for ticks in _TICKS.findall(text or ""))])
    language = (info.split() or [""])[0]
    named = _LANGUAGE.fullmatch(language) and "mermaid" not in language.lower()
    return f"{mark}{language if named else ''}\n{'' if text is None else text + chr(10)}{mark}"


def _prose(text: str) -> str:
    """Text between fences: formulas stay formulas, code within a line stays code, all else is escaped."""
    parts = _FORMULA.split(text)
    return "".join(
        part.replace("&", "&amp;").replace("<", "&lt;") if at % 2 else "\n".join(map(_line, part.split("\n")))
        for at, part in enumerate(parts)
    )


def _line(line: str) -> str:
    parts = _TICKS.split(line)
    closed_by, last = {}, dict[int, int]()
    for at in range(len(parts) - 2, 0, -2):
        closed_by[at] = last.get(len(parts[at]), 0)
        last[len(parts[at])] = at
    out, at = [], 0
    while at < len(parts):
        end = closed_by.get(at, 0)
        before = parts[at - 1]
        if at % 2 == 0:
            out.append(_ESCAPED.sub(lambda found: _IN_PROSE[found[0]], parts[at]))
        elif not end or (len(before) - len(before.rstrip("\\"))) % 2:
            out.append(parts[at] if len(parts[at]) < 3 else "&#96;" * len(parts[at]))
        else:
            out.append(_code(parts[at], "".join(parts[at + 1 : end])))
            at = end
        at += 1
    return "".join(out)


def _code(ticks: str, code: str) -> str:
    if len(ticks) < 3 and not _RISKY.search(code):
        return f"{ticks}{code}{ticks}"
    return f"<code>{plain(code)}</code>"


def _written(found: re.Match[str]) -> str:
    if found["mark"] is not None:
        return found[0]
    if found["lines"] is not None:
        return f"```\n{unescape(found['lines'])}\n```"
    return f"`{unescape(found['code'])}`"
