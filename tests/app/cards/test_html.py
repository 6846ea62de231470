"""The page of cards and models: whole tables, nothing unescaped, and honest about the machine and the method."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import gradio as gr
import pytest

from app.cards import html as cards_html
from app.cards import tab as cards_tab
from core.catalogue.facts import cards, find_card
from core.catalogue.what_fits import what_fits
from core.system.hardware import Device

CPU = Device("cpu", "CPU · 2 cores", 8 * 2**30, 4 * 2**30)


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return parser


@pytest.mark.parametrize(("count", "said"), [(134_515_008, "135M"), (999_885_952, "1.0B"), (405_853_388_800, "405.9B")])
def test_parameters_read_as_models_are_named(count: int, said: str) -> None:
    assert cards_html.parameters(count) == said


@pytest.mark.parametrize("name", sorted(cards()))
def test_a_cards_table_has_a_row_for_every_model_and_scrolls_inside(name: str) -> None:
    html = cards_html.on_card(what_fits().on_card(name))
    assert parsed(html).rows == len(what_fits().models) + 1
    assert html.count('class="nb-scroll nb-fitting" tabindex="0" role="region"') == 1


def test_a_models_table_has_a_row_for_every_card_the_smallest_first() -> None:
    fits = what_fits().of_model("llama-65b")
    html = cards_html.of_model(fits)
    assert parsed(html).rows == len(cards()) + 1
    assert html.index("RTX 2060") < html.index("H200")
    smallest = next(fit.card.title for fit in fits if fit.longest)
    assert f"The smallest card that takes LLaMA 65B is the {smallest}." in html


def test_a_model_that_fits_on_no_card_is_said_so() -> None:
    html = cards_html.of_model(what_fits().of_model("llama-3.1-405b"))
    assert "It fits on none of these cards." in html
    assert "nb-finished" not in html


def test_a_row_says_how_far_and_what_it_takes() -> None:
    fit = what_fits().fit("llama-7b", "rtx-4090-24gb")
    html = cards_html.on_card([fit])
    assert fit.longest == 2048 and "<b>2,048</b>" in html and ">Fits<" in html
    tight = cards_html.on_card([what_fits().fit("llama-65b", "rtx-2060-6gb")])
    assert ">Too large<" in tight and "at 512" in tight and "fp16" in tight


def test_whatever_stands_in_a_title_is_shown_as_text() -> None:
    fit = what_fits().fit("llama-7b", "rtx-4090-24gb")
    evil = '<img src=x onerror="alert(1)">'
    bad = replace(fit, model=replace(fit.model, title=evil), card=replace(fit.card, title=evil))
    for html in (cards_html.on_card([bad]), cards_html.of_model([bad])):
        assert "<img" not in html and "&lt;img" in html
        parsed(html)
    assert "<img" not in cards_html.machine(Device("cuda", evil, 2**30, 2**30), fit.card, False)
    table = replace(what_fits(), left_out={evil: evil})
    assert "<img" not in cards_html.how(table)


def test_the_method_is_said() -> None:
    html = cards_html.how(what_fits())
    parsed(html)
    assert "traced, not run" in html and "Not yet confirmed on a GPU." in html and "rank 16" in html
    assert "On Windows and in WSL2" in html
    assert all(title in html for title in ("Llama 3 70B", "Llama 3 8B"))


def test_the_dtype_is_said_and_the_models_that_need_another() -> None:
    assert "computes in bf16." in cards_html.on_card(what_fits().on_card("rtx-3060-12gb"))
    assert "computes in fp32." in cards_html.on_card(what_fits().on_card("gtx-1080-ti-11gb"))
    turing = cards_html.on_card(what_fits().on_card("t4-16gb"))
    assert "computes in fp16, and Gemma 3 1B, Gemma 2 2B, Gemma 2 9B, Gemma 2 27B in fp32." in turing


def test_a_machine_without_a_card_is_told_so_and_shown_an_example() -> None:
    shown, is_same = cards_tab.first_card(CPU)
    assert (shown.name, is_same) == ("rtx-3060-12gb", False)
    assert "found no usable GPU" in cards_html.machine(CPU, shown, is_same)


def test_the_machines_own_card_is_chosen() -> None:
    own = Device("cuda", "NVIDIA GeForce RTX 4090", 25757220864, 2**30)
    shown, is_same = cards_tab.first_card(own)
    assert (shown.name, is_same) == ("rtx-4090-24gb", True)
    assert "This machine has a GeForce RTX 4090" in cards_html.machine(own, shown, is_same)
    other = Device("cuda", "NVIDIA TITAN Z", 13 * 2**30, 2**30)
    assert "is not in the list" in cards_html.machine(other, *cards_tab.first_card(other))
    apple = Device("mps", "Apple arm64", 2**34, 2**33)
    assert "Apple" in cards_html.machine(apple, find_card("rtx-3060-12gb"), False)


def test_the_tab_is_built_with_its_tables_filled() -> None:
    with gr.Blocks() as demo:
        cards_tab.CardsTab().build()
    events = list(demo.fns.values())
    (card, models), (model, fitting) = ((event.inputs[0], event.outputs[0]) for event in events)
    assert card.value in cards() and model.value in what_fits().models
    assert "<table" in models.value and "<table" in fitting.value
    assert len(events) == 2
