"""What Ollama makes of conversations with templates as published; every expected text is what its own Go code made."""

from __future__ import annotations

import pytest

from core.export.proof.gotemplate import GoError
from core.export.proof.readers.ollama_template import OllamaTemplate, collated

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "again"},
]
TURNS = "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}<{{ .Role }}>{{ .Content }}"


def test_messages_of_a_role_that_follow_each_other_are_joined_and_system_prompts_gathered() -> None:
    conversation = [*CONVERSATION[:2], {"role": "user", "content": "two"}, {"role": "system", "content": "Mind."}]
    system, joined = collated(conversation)
    assert system == "Be brief.\n\nMind."
    assert [each["content"] for each in joined] == [
        "Be brief.",
        "Hi\n\ntwo",
        "Mind.",
    ]
    said = OllamaTemplate(TURNS + "{{ if $last }}<end>{{ end }}{{ end }}").render(CONVERSATION)
    assert said == "<system>Be brief.<user>Hi<assistant>Yo<user>again<end>"


def test_what_ollama_refuses_to_create_is_refused() -> None:
    with pytest.raises(GoError, match="calls toJson"):
        OllamaTemplate("{{ toJson .Messages }}")
    with pytest.raises(GoError, match="without a value"):
        OllamaTemplate('{{ define "x" }}{{ end }}{{ template "x" }}')


@pytest.mark.parametrize(
    ("template", "said"), [("{{ .Prompt }}", "does not speak of .Messages"), (TURNS + "{{ .Tools }}{{ end }}", "tools")]
)
def test_a_template_of_a_form_that_nibble_does_not_write_is_refused(template: str, said: str) -> None:
    with pytest.raises(GoError, match=said):
        OllamaTemplate(template)
