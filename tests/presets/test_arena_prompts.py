"""The Arena's questions: enough of them, of several kinds, each once, and in good form."""

from __future__ import annotations

from collections import Counter

from core.arena.prompts import categories, shipped


def test_there_are_enough_in_several_categories() -> None:
    assert len(shipped()) >= 60
    assert len(categories()) >= 6
    assert min(len(each.prompts) for each in categories()) >= 5


def test_each_is_asked_once_and_is_plain_text() -> None:
    questions = [prompt.text for prompt in shipped()]
    assert max(Counter(question.lower() for question in questions).values()) == 1
    for question in questions:
        assert question == question.strip()
        assert 10 <= len(question) <= 400
        assert question[0].isupper() and "\n" not in question
        assert question.isprintable()


def test_one_category_can_be_asked_alone() -> None:
    names = [each.name for each in categories()]
    assert len(names) == len(set(names))
    assert {prompt.source for prompt in shipped(names[0])} == {f"shipped:{names[0]}"}
