"""Chat templates of strangers: whatever they try, rendering ends soon, takes little memory, and runs nothing."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from core.untrusted.chat_templates import TEMPLATE_ERRORS, bound_templates
from core.untrusted.template_limits import TooMuch

TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello to you"}]
DOUBLING = "{% set ns = namespace(s=START) %}{% for i in range(60) %}{% set ns.s = NEXT %}{% endfor %}{{ ns.s }}"


def _doubling(start: str, following: str) -> str:
    return DOUBLING.replace("START", start).replace("NEXT", following)


ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 10000000000 }}",
    "a long list": "{{ [1] * 10000000000 }}",
    "a long number": "{{ 10 ** (10 ** 9) }}",
    "a product of long numbers": _doubling("7", "ns.s * ns.s"),
    "a text joined to itself": _doubling("'x'", "ns.s ~ ns.s"),
    "a text added to itself": _doubling("'x'", "ns.s + ns.s"),
    "a list of itself": _doubling("[1]", "[ns.s, ns.s]"),
    "a dict of itself": _doubling("{}", "dict(a=ns.s, b=ns.s)"),
    "a namespace of itself": _doubling("namespace(a=1)", "namespace(a=ns.s, b=ns.s)"),
    "a text set twice": "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set y %}{{ ns.s }}{{ ns.s }}"
    "{% endset %}{% set ns.s = y %}{% endfor %}",
    "a padding": "{{ 'x'.ljust(10000000000) }}",
    "zeros": "{{ 'x'.zfill(10000000000) }}",
    "tabs": "{{ ('\t' * 100000).expandtabs(1000000) }}",
    "a wide number": "{{ '%10000000000d' % 1 }}",
    "a width of its own": "{{ '%*d' % (10000000000, 1) }}",
    "a wide format": "{{ '{:10000000000}'.format(1) }}",
    "a format in a format": "{{ '{:{}}'.format(1, 10000000000) }}",
    "a wide filter": "{{ '%10000000000d'|format(1) }}",
    "a wide indent": "{{ 'x\n'|indent(10000000000) }}",
    "a wide JSON": "{{ [1]|tojson(indent=10000000000) }}",
    "a replacement": "{{ ('x' * 1000000)|replace('x', 'y' * 1000000) }}",
    "a replacement of nothing": "{{ ('x' * 1000000).replace('', 'y' * 1000000) }}",
    "a joined list": "{{ (['x' * 1000000] * 100000)|join }}",
    "a long joint": "{{ ('y' * 1000000).join(['x'] * 100000) }}",
    "slices": "{% set ns = namespace(l=[], s='x' * 10000000) %}{% for i in range(100000) %}"
    "{% set ns.l = ns.l + [ns.s[i:]] %}{% endfor %}",
    "a long output": "{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{{ s }}{% endfor %}",
    "long replies": "{% for i in range(100000) %}{% generation %}" + "x" * 10000 + "{% endgeneration %}{% endfor %}",
    "a macro of itself": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "loops of themselves": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a long source": "x" * 600_000,
    "words out of nothing": "{{ lipsum(1000000) }}",
    "a way out by a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a way out by a function": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "a way out by a format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "a way out by a filter": "{{ (''|attr('__class__')).mro() }}",
    "a file": "{% include '/etc/passwd' %}",
}


SLOW = ("a list of itself", "a dict of itself", "a joined list", "a long joint")


@pytest.mark.parametrize("name", [name for name in ENDLESS if name not in SLOW])
def test_a_template_without_end_is_ended(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    bound_templates()
    began = time.monotonic()
    with pytest.raises(TEMPLATE_ERRORS):
        render_jinja_template([TALK], chat_template=ENDLESS[name])
    assert time.monotonic() - began < 10


@pytest.mark.full
@pytest.mark.parametrize("name", ENDLESS)
def test_it_takes_little_memory(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    bound_templates()
    tracemalloc.start()
    try:
        with pytest.raises(TEMPLATE_ERRORS):
            render_jinja_template([TALK], chat_template=ENDLESS[name])
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.full
@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_tried_before_training_ends_as_well(name: str, tmp_path) -> None:
    from core.data.rendering.template import require_template
    from core.errors import NibbleError
    from core.recipe import DataSettings
    from tests.tiny import tiny_tokenizer

    began = time.monotonic()
    with pytest.raises(NibbleError):
        require_template(tiny_tokenizer(tmp_path, ENDLESS[name]), DataSettings())
    assert time.monotonic() - began < 90


def test_a_long_conversation_is_no_reason_to_stop() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    bound_templates()
    talk = [{"role": "user", "content": "word " * 40_000}, {"role": "assistant", "content": "ä" * 400_000}] * 10
    template = "{% for m in messages %}{{ m['role'] ~ ': ' ~ m['content']|trim|replace('a', 'b') ~ '\n' }}{% endfor %}"
    (text,), _ = render_jinja_template([talk], chat_template=template)
    assert len(text) > 5_000_000


def test_the_limits_are_those_of_every_tokenizer(tmp_path) -> None:
    from tests.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer(tmp_path, ENDLESS["a long text"])
    bound_templates()
    with pytest.raises(TooMuch):
        tokenizer.apply_chat_template(TALK, tokenize=False)
