"""The tuple of layouts is all that names them: what the recipe takes, the form shows and a file is recognised as."""

from __future__ import annotations

import pytest

from app.ui.form import WORDS
from core.data.formats.layouts import BY_PRECEDENCE, FORMATS, LAYOUTS
from core.errors import RecipeError
from core.recipe import make_recipe


def test_each_layout_is_named_once_and_has_a_label() -> None:
    assert list(FORMATS) == ["auto", *(layout.name for layout in LAYOUTS), "mapping"]
    assert len(set(FORMATS.values())) == len(FORMATS) == len(LAYOUTS) + 2
    assert set(BY_PRECEDENCE) == set(LAYOUTS) and WORDS["data.format"] == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_the_recipe_takes_every_layout(name: str) -> None:
    assert make_recipe({"data.format": name}).data.format == name


def test_a_layout_that_there_is_not_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(RecipeError) as refused:
        make_recipe({"data.format": "word", "lora.rank": 0})
    *others, last = (f"'{name}'" for name in FORMATS)
    assert str(refused.value) == (
        f"data.format: 'word' is not valid; allowed: {', '.join(others)} or {last}. "
        "lora.rank: 0 is not valid; allowed: 1 to 512."
    )
