"""Go's text/template as Modelfiles use it. Every expected text here is what Go itself printed (1.19, text/template)."""

from __future__ import annotations

import pytest

from core.export.proof.gotemplate import GoError, execute, parse
from core.export.proof.gotemplate.functions import ollama
from core.export.proof.gotemplate.values import Struct

DATA = {
    "System": "Be brief.",
    "Messages": [
        Struct("message", {"Role": role, "Content": said}, is_pointer=True)
        for role, said in (("user", "Hi"), ("assistant", "Yo"), ("user", "again"))
    ],
}


def _said(template: str) -> str:
    return execute(parse(template), DATA, ollama())


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a  {{- /* gone */ -}}  b {{/* too */}}c", "ab c"),
        ("x {{- 3 }}{{ -3 -}} y", "x3-3y"),
        ('{{ "q\\"\\u00e9\\n" }}{{ `raw\\n` }}', 'q"é\nraw\\n'),
        ("{{ 0x10 }} {{ 'a' }} {{ 1_000 }} {{ true }}", "16 97 1000 true"),
        ("{{ range $i, $m := .Messages }}{{ if $i }}, {{ end }}{{ $m.Role }}{{ end }}", "user, assistant, user"),
        (
            "{{ range .Messages }}{{ .Role }}{{ if eq .Role `assistant` }}{{ break }}{{ end }} {{ end }}",
            "user assistant",
        ),
        ("{{ range .Messages }}{{ if ne .Role `user` }}{{ continue }}{{ end }}{{ .Content }};{{ end }}", "Hi;again;"),
        ("{{ range $.Nothing }}x{{ else }}none{{ end }}", "none"),
        ('{{ $x := "a" }}{{ if true }}{{ $x := "b" }}{{ $x = "c" }}{{ $x }}{{ end }}{{ $x }}', "ca"),
        ("{{ $x := 0 }}{{ range $i, $m := .Messages }}{{ $x = $i }}{{ end }}{{ $x }}", "2"),
        ("{{ with .System }}<{{ . }}>{{ else }}no{{ end }}{{ with .Nothing }}x{{ else }}no{{ end }}", "<Be brief.>no"),
        ("{{ if and .System (eq (len .Messages) 2) }}A{{ else if or 0 .Nothing }}B{{ else }}C{{ end }}", "C"),
        ("{{ and 1 0 2 }}{{ or 0 `` `x` }}{{ not 0 }}", "0xtrue"),
        ('{{ lt "a" "b" }}{{ le 2 2 }}{{ ge 1 2 }}{{ ne "a" "b" }}', "truetruefalsetrue"),
        ("{{ .System | len }}{{ len `ü` }}{{ slice `abcd` 1 3 }}{{ index `a` 0 }}", "92bc97"),
        ("{{ (index .Messages 1).Content }}{{ len (slice .Messages 1) }}", "Yo2"),
        ("{{ .Nothing }}", "<no value>"),
        (
            "{{ define `cut` }}{{ if and . (eq (index . 0) 32) }}{{ template `cut` (slice . 1) }}{{ else }}{{ . }}"
            "{{ end }}{{ end }}[{{ template `cut` `   x ` }}]",
            "[x ]",
        ),
        ("{{ block `b` .System }}({{ . }}){{ end }}", "(Be brief.)"),
    ],
)
def test_a_template_says_what_go_says(template: str, said: str) -> None:
    assert _said(template) == said


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ if .X }}open", "no {{ end }}"),
        ("{{ end }}", "nothing that it ends"),
        ("{{ .A | .B }}", "no function"),
        ("{{ nil }}", "nil is no command"),
        ("{{ break }}", "outside of a range"),
        ("{{ $unknown }}", "is not there"),
        ("{{ eq 1 1.0 }}", "compared with a float"),
        ("{{ index .Messages 9 }}", "out of range"),
        ("{{ slice `a` 2 }}", "out of range"),
        ("{{ .Nothing.Deep }}", "of nothing"),
        ("{{ range .Messages }}{{ .Bad }}{{ end }}", "a message has no .Bad"),
        ("{{ len .Nothing }}", "the length of a nil"),
        ("{{ .Messages }}", "where messages lie in memory"),
        ("{{ template `nowhere` . }}", "is not defined"),
        ("{{ html .System }}", "html is not known here"),
        ("{{ printf .System }}", "printf is not known here"),
        ("{{ 1.5 }}", "a number with a fraction"),
        ("{{ 'ab' }}", "not understood"),
        ("{{ unclosed", "not closed"),
    ],
)
def test_what_go_refuses_and_what_is_not_known_is_an_error_that_names_it(template: str, said: str) -> None:
    with pytest.raises(GoError, match=said):
        _said(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ define `a` }}{{ template `a` . }}{{ end }}{{ template `a` . }}",
        "{{ range $i, $_ := 100000 }}{{ range $j, $_ := 100000 }}{{ end }}{{ end }}",
        "{{ if 1 }}" * 2000 + "{{ end }}" * 2000,
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "x" * 300_000,
    ],
    ids=["endless", "loops", "deep", "brackets", "long"],
)
def test_a_template_of_a_strangers_takes_bounded_time_and_memory(template: str) -> None:
    with pytest.raises(GoError):
        _said(template)
