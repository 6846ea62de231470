"""Turns as a template of Go's text/template, over Ollama's .Messages. Imports no torch.

Literals are quoted, so that Go trims none of them. White space at the ends of what is said is cut off by templates that
call themselves, for Ollama gives templates no function that does; of the white space that Jinja cuts they know ASCII's.
"""

import json
from dataclasses import replace

from core.export.ollama.template_turns import Cut, NoTurns, Turns, pieces

# There is no function to fail with: an index that cannot be is told with all that stands in it.
NO_SYSTEM = '{{ index .Content "this model takes no system prompt" }}'
# By this, which says nothing, Ollama knows thoughts by their tags: it hands them out apart from the reply that follows,
# and so they are not in the replies that come back (its thinking/template.go).
_THOUGHTS = "{{ if false }}<think>{{ .Thinking }}</think>{{ end }}"
# Of a byte: white space, or a line feed.
_TESTS = {"space": "or (eq $c 32) (and (gt $c 8) (lt $c 14))", "line": "eq $c 10"}
_MONTHS = ["January", "February", "March", "April", "May", "June"]
_MONTHS += ["July", "August", "September", "October", "November", "December"]
# Ollama's currentDate is 2026-11-30, in whatever form it is asked for.
_DATE = {
    "Y": "{{ slice currentDate 0 4 }}",
    "y": "{{ slice currentDate 2 4 }}",
    "m": "{{ slice currentDate 5 7 }}",
    "d": "{{ slice currentDate 8 10 }}",
    "%": '{{ "%" }}',
}


def go_template(turns: Turns) -> str:
    """Raises NoTurns where the template writes the date in a form that Go's cannot.

    A system prompt that the turns do not take makes Ollama refuse the conversation, in words of ours.
    """
    said = {role: _content(turns.cuts.get(role)) for role in ("system", "user", "assistant")}
    system, told = NO_SYSTEM, ""
    if turns.begin_system is not None:
        system = f"{_say(turns.begin_system)}{said['system']}"
        told = "{{ $told = true }}"
    before, first = _say(turns.before_question), _say(turns.first)
    opens = before if first == before else f"{{{{ if eq $i 0 }}}}{first}{{{{ else }}}}{before}{{{{ end }}}}"
    if told:
        opens = f"{{{{ if $told }}}}{{{{ $told = false }}}}{_say(turns.after_system)}{{{{ else }}}}{opens}{{{{ end }}}}"
    to_reply, to_said = _say(turns.to_reply), _say(turns.to_said)
    closes = to_reply if to_reply == to_said else f"{{{{ if $last }}}}{to_reply}{{{{ else }}}}{to_said}{{{{ end }}}}"
    return (
        f"{_definitions(turns)}"
        "{{ $told := false }}{{ range $i, $message := .Messages }}"
        "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f"{_THOUGHTS if turns.drops_thoughts else ''}"
        f'{{{{ if eq .Role "system" }}}}{system}{told}'
        f'{{{{ else if eq .Role "user" }}}}{opens}{said["user"]}{closes}'
        f'{{{{ else if eq .Role "assistant" }}}}{said["assistant"]}'
        f"{{{{ if not $last }}}}{_say(turns.after_reply)}{{{{ end }}}}"
        "{{ end }}{{ end }}"
    )


def _content(cut: Cut | None) -> str:
    return f'{{{{ template "{_name(cut)}" .Content }}}}' if cut else "{{ .Content }}"


def _name(cut: Cut) -> str:
    sides = {(True, True): "both", (True, False): "start", (False, True): "end"}
    return f"{'line' if cut.lines_only else 'space'} {sides[cut.start, cut.end]}"


def _definitions(turns: Turns) -> str:
    """The templates that cut, each once: one that cuts both ends leaves the second end to another."""
    cuts = set(turns.cuts.values())
    cuts |= {replace(cut, start=False) for cut in cuts if cut.start and cut.end}
    return "".join(_definition(cut) for cut in sorted(cuts, key=_name))


def _definition(cut: Cut) -> str:
    name, test = _name(cut), _TESTS["line" if cut.lines_only else "space"]
    rest, last = "(slice . 1)", "(len (slice . 1))"
    place, shorter = ("0", rest) if cut.start else (last, f"(slice . 0 {last})")
    then = f'{{{{ template "{_name(replace(cut, start=False))}" . }}}}' if cut.start and cut.end else "{{ . }}"
    return (
        f'{{{{ define "{name}" }}}}{{{{ if . }}}}{{{{ $c := index . {place} }}}}{{{{ if {test} }}}}'
        f'{{{{ template "{name}" {shorter} }}}}{{{{ else }}}}{then}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}'
    )


def _say(text: str) -> str:
    """Words of the template, with today's date where its mark is."""
    return "".join(_literal(part) if kind == "text" else _date(part) for kind, part in pieces(text))


def _literal(text: str) -> str:
    """A text as Go reads it in quotes; what a Modelfile drops, which is what is not printable, is spelt out."""
    quoted = json.dumps(text, ensure_ascii=False)
    spelt = "".join(each if each.isprintable() else _spelt(each) for each in quoted)
    return f"{{{{ {spelt} }}}}"


def _spelt(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def _date(form: str) -> str:
    parts, letters = [], iter(form)
    for letter in letters:
        if letter != "%":
            parts.append(_literal(letter))
            continue
        asked = next(letters, "")
        dashed = asked == "-"
        asked = next(letters, "") if dashed else asked
        parts.append(_part_of_date(asked, dashed, form))
    return "".join(parts)


def _part_of_date(asked: str, dashed: bool, form: str) -> str:
    if dashed and asked in ("d", "m"):
        start = {"d": 8, "m": 5}[asked]
        bare = f"{{{{ slice currentDate {start + 1} {start + 2} }}}}"
        test = f'if eq (slice currentDate {start} {start + 1}) "0"'
        return f"{{{{ {test} }}}}{bare}{{{{ else }}}}{_DATE[asked]}{{{{ end }}}}"
    if asked in ("b", "B") and not dashed:
        names = [name[:3] if asked == "b" else name for name in _MONTHS]
        tests = [f'if eq (slice currentDate 5 7) "{n:02}" }}}}{name}' for n, name in enumerate(names, 1)]
        return "{{ " + "{{ else ".join(tests) + "{{ end }}"
    if asked not in _DATE or dashed:
        raise NoTurns(f"writes the date as {form!r}, which Ollama's templates cannot")
    return _DATE[asked]
