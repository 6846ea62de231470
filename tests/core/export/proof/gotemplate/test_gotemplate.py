"""Go's text/template as Nibble's Modelfiles use it. Every expected text here is what Go itself printed (1.19)."""

from __future__ import annotations

import pytest

from core.export.proof.gotemplate import GoError, execute, parse
from core.export.proof.gotemplate.functions import ollama

DATA = {
    "System": "Be brief.",
    "Messages": [
        {"Role": role, "Content": said} for role, said in (("user", "Hi"), ("assistant", "Yo"), ("user", "again"))
    ],
}


def _said(template: str) -> str:
    return execute(parse(template), DATA, ollama())


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ('{{ "q\\"\\u00e9\\n" }}{{ "\\U0001f642" }}', 'q"é\n🙂'),
        ("{{ 3 }} {{ -3 }} {{ true }}", "3 -3 true"),
        ("{{ range $i, $m := .Messages }}{{ if $i }}, {{ end }}{{ $m.Role }}{{ end }}", "user, assistant, user"),
        ("{{ range slice $.Messages 3 }}x{{ else }}none{{ end }}", "none"),
        ('{{ $x := "a" }}{{ if true }}{{ $x := "b" }}{{ $x = "c" }}{{ $x }}{{ end }}{{ $x }}', "ca"),
        ("{{ $x := 0 }}{{ range $i, $m := .Messages }}{{ $x = $i }}{{ end }}{{ $x }}", "2"),
        ("{{ if and .System (eq (len .Messages) 2) }}A{{ else if or 0 false }}B{{ else }}C{{ end }}", "C"),
        ('{{ and 1 0 2 }}{{ or 0 "" "x" }}{{ not 0 }}', "0xtrue"),
        ("{{ lt 1 2 }}{{ gt 2 2 }}", "truefalse"),
        ('{{ len "ü" }}{{ slice "abcd" 1 3 }}{{ index "a" 0 }}{{ len (slice .Messages 1) }}', "2bc972"),
        ('{{ slice "ü" 0 1 }}{{ slice "ü" 1 }}', "ü"),
        (
            '{{ define "cut" }}{{ if and . (eq (index . 0) 32) }}{{ template "cut" (slice . 1) }}{{ else }}{{ . }}'
            '{{ end }}{{ end }}[{{ template "cut" "   x " }}]',
            "[x ]",
        ),
        ('{{ if eq ")" ")" }}{{ "(" }}{{ end }}', "("),
    ],
)
def test_a_template_says_what_go_says(template: str, said: str) -> None:
    assert _said(template) == said


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ if .X }}open", "no {{ end }}"),
        ("{{ end }}", "nothing that it ends"),
        ("{{ .System .Messages }}", "no function"),
        ("{{ $unknown }}", "is not there"),
        ('{{ eq 1 "1" }}', "compared with a str"),
        ("{{ index .Messages 9 }}", "out of range"),
        ('{{ slice "a" 2 }}', "out of range"),
        ("{{ .System.Deep }}", "has no .Deep"),
        ("{{ range .Messages }}{{ .Bad }}{{ end }}", "has no .Bad"),
        ("{{ range .System }}{{ end }}", "range goes over a str"),
        ("{{ len 1 }}", "a int has no length"),
        ("{{ .Messages }}", "it prints a list"),
        ('{{ template "nowhere" . }}', "is not defined"),
        ("{{ printf .System }}", "printf is not known here"),
        ("{{ eq 1 }}", "eq is given 1 values"),
        ("{{ 1.5 }}", "not understood"),
        ("{{ .A | .B }}", "not understood"),
        ("{{- 1 }}", "not understood"),
        ('{{ "\\d" }}', "not understood"),
        ("{{ (len .System }}", "a bracket is not closed"),
        ("{{ , }}", "not expected"),
        ("{{ }}", "a value is missing"),
        ("{{ unclosed", "no }} closes"),
    ],
)
def test_what_go_refuses_and_what_is_not_known_is_an_error_that_names_it(template: str, said: str) -> None:
    with pytest.raises(GoError, match=said):
        _said(template)


@pytest.mark.parametrize(
    "template",
    [
        '{{ define "a" }}{{ template "a" . }}{{ end }}{{ template "a" . }}',
        "{{ range .Messages }}" * 12 + "{{ end }}" * 12,
        "{{ if 1 }}" * 2000 + "{{ end }}" * 2000,
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "x" * 300_000,
    ],
    ids=["endless", "loops", "deep", "brackets", "long"],
)
def test_a_template_of_a_strangers_takes_bounded_time_and_memory(template: str) -> None:
    with pytest.raises(GoError):
        _said(template)
