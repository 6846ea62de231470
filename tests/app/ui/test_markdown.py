"""Markdown of strangers: shown as written, never HTML, and what a person changes is what was written."""

from __future__ import annotations

import time

import pytest

from app.ui.markdown import as_written, literal, plain
from tests.app.data.canned import HOSTILE

CODE = "Look:\n\n```html\n<b>bold</b>\n```\nand `a < b` & <i>more</i>"


def test_html_is_shown_as_written_and_code_stays_code() -> None:
    assert "<script" not in literal(HOSTILE) and "<img" not in literal(HOSTILE)
    assert "```html\n<b>bold</b>\n```" in literal(CODE)
    assert "<code>a &#60; b</code> &amp; &lt;i>" in literal(CODE)
    assert literal("`a > b` and ``c``") == "`a > b` and ``c``"


def test_a_fence_stands_apart_and_can_be_ended_by_nothing_in_it() -> None:
    assert literal("```\n<still coming") == "```\n<still coming\n```"
    assert literal("a\n~~~\n```\n~~~") == "a\n\n````\n```\n````"
    assert literal("1. a\n   ```\n   b < c\n   ```").endswith("   <pre><code>b &#60; c</code></pre>")
    assert "mermaid" not in literal("```mermaid\nflowchart\n```")
    assert literal('```"><b>\nx\n```') == "```\nx\n```"


def test_formulas_stay_formulas_and_pictures_become_links() -> None:
    assert literal("so $$a < b$$.") == "so $$a &lt; b$$."
    assert literal("it costs $$") == "it costs &#36;&#36;"
    assert literal("![a](b)") == "&#33;[a](b)"


def test_a_name_is_no_markdown() -> None:
    assert plain("![a](b) *c*\n# d ä") == "&#33;&#91;a&#93;&#40;b&#41; &#42;c&#42;&#10;&#35; d ä"


@pytest.mark.parametrize(
    "text", [HOSTILE, CODE, "a &amp; b &lt;", "plain", "`![a](b)` \\`<i>`", "$$a<b$$ $$", "[1]: x", "`a\n`<b>`"]
)
def test_what_is_edited_is_what_was_written(text: str) -> None:
    assert as_written(literal(text)) == text


@pytest.mark.parametrize("part", ["`", "` ", "``` \n", "$$", "```\n<a>\n", "- ```\n", "<", "~~~\n"])
def test_a_long_text_costs_no_more_than_its_length(part: str) -> None:
    def seconds(count: int) -> float:
        began = time.process_time()
        as_written(literal(part * count))
        return time.process_time() - began

    assert seconds(40_000) < 16 * max(seconds(10_000), 0.005)  # quadratic would be 16 times at once, and grow
