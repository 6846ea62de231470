"""A Modelfile is read as Ollama's parser reads it."""

from __future__ import annotations

import pytest

from core.export.proof.readers.modelfile import BadModelfile, parse_modelfile

WRITTEN = '''FROM ./model.gguf
adapter ./adapter.gguf
TEMPLATE """{{ if .System }}<s>
{{ .System }}{{ end }}
"say" {{ .Prompt }}"""
PARAMETER stop <|end|>
PARAMETER stop "### Human:"
PARAMETER stop """a "b"
c"""
PARAMETER temperature 0.7
'''


def test_every_command_is_read_and_nothing_between_quotes_is_taken_for_an_escape() -> None:
    found = parse_modelfile(WRITTEN)
    assert (found.model, found.adapter) == ("./model.gguf", "./adapter.gguf")
    assert found.template == '{{ if .System }}<s>\n{{ .System }}{{ end }}\n"say" {{ .Prompt }}'
    assert found.parameters == {"stop": ["<|end|>", "### Human:", 'a "b"\nc'], "temperature": ["0.7"]}
    assert parse_modelfile('FROM a\nPARAMETER stop "a\\nb"').parameters["stop"] == ["a\\nb"]
    assert parse_modelfile('FROM a\nPARAMETER stop "a" b"').parameters["stop"] == ['a" b']


def test_what_is_not_printable_is_dropped_as_ollama_drops_it() -> None:
    assert parse_modelfile('FROM a\nTEMPLATE """x\u200b\x01y▁｜"""').template == "xy▁｜"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TEMPLATE x", "no FROM"),
        ("FROM a\nNONSENSE b", "'NONSENSE b' is not understood"),
        ("FROM a\nSYSTEM You are kind.", "'SYSTEM You are kind.' is not understood"),
        ('FROM a\nTEMPLATE """open', "not closed"),
        ('FROM a\nTEMPLATE """\n', "not closed"),
        ("FROM", "'FROM' is not understood"),
    ],
)
def test_what_ollama_refuses_and_nibble_does_not_write_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadModelfile, match=said):
        parse_modelfile(text)


def test_a_file_of_nothing_but_lines_in_an_open_quote_is_refused_at_once() -> None:
    with pytest.raises(BadModelfile, match="not closed"):
        parse_modelfile('FROM a\nTEMPLATE """' + "x\n" * 400_000)
