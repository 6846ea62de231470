"""A Modelfile is read as Ollama's parser reads it."""

from __future__ import annotations

import pytest

from core.export.proof.readers.modelfile import BadModelfile, parse_modelfile

PUBLISHED = '''# as people write them
FROM ./model.gguf
adapter ./adapter.gguf
TEMPLATE """{{ if .System }}<s>
{{ .System }}{{ end }}
"say" {{ .Prompt }}"""
SYSTEM You are kind.
PARAMETER stop <|end|>
PARAMETER stop "### Human:"
PARAMETER temperature 0.7
MESSAGE user Hello there
LICENSE """
MIT"""
'''


def test_every_command_is_read_and_nothing_between_quotes_is_taken_for_an_escape() -> None:
    found = parse_modelfile(PUBLISHED)
    assert (found.model, found.adapter, found.system) == ("./model.gguf", "./adapter.gguf", "You are kind.")
    assert found.template == '{{ if .System }}<s>\n{{ .System }}{{ end }}\n"say" {{ .Prompt }}'
    assert found.parameters == {"stop": ["<|end|>", "### Human:"], "temperature": ["0.7"]}
    assert found.messages == [("user", "Hello there")] and found.others["license"] == "\nMIT"
    assert parse_modelfile('FROM a\nPARAMETER stop "a\\nb"').parameters["stop"] == ["a\\nb"]


def test_what_is_not_printable_is_dropped_as_ollama_drops_it() -> None:
    assert parse_modelfile('FROM a\nTEMPLATE """x\u200b\x01y▁｜"""').template == "xy▁｜"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TEMPLATE x", "no FROM"),
        ("FROM a\nNONSENSE b", "no command"),
        ('FROM a\nTEMPLATE """open', "not closed"),
        ("FROM", "nothing follows"),
    ],
)
def test_what_ollama_refuses_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadModelfile, match=said):
        parse_modelfile(text)


def test_a_file_of_nothing_but_lines_in_an_open_quote_is_refused_at_once() -> None:
    with pytest.raises(BadModelfile, match="not closed"):
        parse_modelfile('FROM a\nTEMPLATE """' + "x\n" * 400_000)
