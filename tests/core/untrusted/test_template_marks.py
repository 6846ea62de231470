"""A chat template without its marks renders what it rendered with them, for every template and every kind of mark."""

from __future__ import annotations

import pytest
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.untrusted.template_marks import has_marks, plain_template
from tests.chat_templates import TEMPLATES

MARKED = {
    "plain": "a {% generation %}b{% endgeneration %} c",
    "dashes": "a \n {%- generation -%} \n b {%- endgeneration %}\n c{% generation %}\nd{% endgeneration %}",
    "white space kept": "a\n  {%+ generation +%}\n  b\n  {%+ endgeneration -%}  \n c",
    "alone on their lines": "a\n    {% generation %}\nb\n    {% endgeneration %}\nc\n",
    "close together": "a{%-generation-%} b {%-endgeneration-%} c",
    "in a comment": "{#- see {% generation %} and {%- endgeneration -%} -#} a{% generation %}b{% endgeneration %}",
    "in a string": "{{ '{% generation %}' ~ \"{%- endgeneration %}\" }}{% generation %}b{% endgeneration %}",
    "in a raw block": "{% raw %}{% generation %} b {% endgeneration %}{% endraw %}{% generation %}c{% endgeneration %}",
    "in a raw block with dashes": "a {%- raw -%} {% generation %} {%- endraw -%} b{% generation %}c{% endgeneration %}",
    "in a loop": "{% for i in [1, 2] %}{% generation %}{{ loop.index }}{{ i }}{% endgeneration %}\n{% endfor %}\n",
    "a name that ends inside": "{% set c = 1 %}{%- generation -%}{% set c = 2 %}{{ c }}{%- endgeneration -%} {{ c }}",
    "a name that ends in a branch": (
        "{% for i in [1, 2] %}{% set c = i %}{% if i == 1 %}{% generation %}{% set c = 9 %}{{ c }}{% endgeneration %}"
        "{% endif %}{{ c }}{% endfor %}"
    ),
    "a namespace outlives it": (
        "{% set n = namespace(c=1) %}{% generation %}{% set n.c = 2 %}{% endgeneration %}{{ n.c }}"
    ),
    "lines of another system": "a\r\n  {% generation %}\r\nb{% endgeneration %}\r\nc\r\n",
}


class _Call(Extension):
    """A marked block as transformers compiles it: a call whose text is kept as it is."""

    tags = {"generation"}

    def parse(self, parser):  # type: ignore[no-untyped-def]
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller):  # type: ignore[no-untyped-def]
        return caller()


@pytest.mark.parametrize("kind", MARKED)
def test_the_text_stays_the_same_without_marks(kind: str) -> None:
    as_transformers = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Call, loopcontrols]
    )
    elsewhere = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    bare = plain_template(MARKED[kind])
    assert elsewhere.from_string(bare).render() == as_transformers.from_string(MARKED[kind]).render()
    assert has_marks(MARKED[kind]) and not has_marks(bare)
    assert plain_template(bare) == bare


def test_a_mark_that_is_only_talked_about_is_none() -> None:
    for text in ("{# {% generation %} #}a", "{% raw %}{% generation %}{% endraw %}", "{{ '{% generation %}' }}", "{%"):
        assert not has_marks(text)
        assert plain_template(text) == text


def test_what_no_program_can_compile_is_taken_as_it_is() -> None:
    for behind in ("{% if %}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% endfor %}"):
        assert plain_template("{% generation %}a{% endgeneration %}" + behind) == "{# #}a{# #}" + behind


@pytest.mark.parametrize("name", [name for name, text in TEMPLATES.items() if has_marks(text)])
def test_no_published_template_leaves_a_piece_of_a_comment(name: str) -> None:
    """27 of trl's training templates name the marks in the comment at their head."""
    bare = plain_template(TEMPLATES[name])
    comments = [text for _, kind, text in ImmutableSandboxedEnvironment().lex(TEMPLATES[name]) if kind == "comment"]
    left = [text for _, kind, text in ImmutableSandboxedEnvironment().lex(bare) if kind == "comment"]
    assert [text for text in left if text != " "] == comments
