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
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of <a> city",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"unit": {"type": ["string", "null"], "enum": ["c"]}, "city": {"type": "string"}},
        },
    },
}
# As templates for .Prompt were written before there were .Messages, with and without what is added behind.
OLD = "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST] "
TURNS = "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}<{{ .Role }}>{{ .Content }}"


@pytest.mark.parametrize("template", [OLD, OLD + "{{ .Response }}", OLD + "{{ .Response }}</s>"])
def test_a_template_of_one_prompt_is_executed_for_each_question_and_cut_at_the_reply(template: str) -> None:
    ends = "</s>" if template.endswith("</s>") else ""
    said = OllamaTemplate(template).render(CONVERSATION)
    assert said == f"[INST] Be brief.\n\nHi[/INST] Yo{ends}[INST] again[/INST] "


def test_the_last_cut_stands_within_branches_too_and_not_before_an_else() -> None:
    within = "{{ .Prompt }}{{ if .Response }}:{{ .Response }}!{{ end }}."
    assert OllamaTemplate(within).render(CONVERSATION[1:2]) == "Hi"
    with pytest.raises(GoError, match="cannot cut at a .Response"):
        OllamaTemplate("{{ if .Response }}{{ .Response }}{{ else }}x{{ end }}").render(CONVERSATION)
    with pytest.raises(GoError, match="currentDate is not known"):  # the tree that is cut has lost its functions
        OllamaTemplate("{{ currentDate }}{{ .Prompt }}{{ .Response }}").render(CONVERSATION)


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


def test_tools_and_calls_are_written_as_go_marshals_them() -> None:
    template = OllamaTemplate(
        "{{ range .Tools }}{{ .Function }}|{{ . }}|{{ range $name, $p := .Function.Parameters.Properties }}"
        "{{ $name }}:{{ $p.Type }};{{ end }}{{ end }}"
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    )
    call = {"function": {"name": "weather", "arguments": '{"unit": "c", "city": "Rome", "days": 3}'}}
    said = template.render([CONVERSATION[1], {"role": "assistant", "content": "", "tool_calls": [call]}], [TOOL])
    function, tool, rest = said.split("|")
    properties = '{"city":{"type":"string"},"unit":{"type":["string","null"],"enum":["c"]}}'
    assert tool == (
        '{"type":"function","function":{"name":"weather","description":"of \\u003ca\\u003e city",'
        f'"parameters":{{"type":"object","required":["city"],"properties":{properties}}}}}}}'
    )
    assert function.startswith("{weather of <a> city {object") and properties in function
    assert rest == 'city:string;unit:[string null];weather{"city":"Rome","days":3,"unit":"c"}'


def test_what_ollama_refuses_to_create_is_refused() -> None:
    with pytest.raises(GoError, match="knows no function toJson"):
        OllamaTemplate("{{ .Messages | toJson }}")
    with pytest.raises(GoError, match="without a value"):
        OllamaTemplate('{{ define "x" }}{{ end }}{{ template "x" }}')
