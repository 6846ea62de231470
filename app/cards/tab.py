"""Cards: what can my card train? Every known model on a card, and every card for a model, from traced steps."""

import gradio as gr

from app.cards import html as cards_html
from app.ui.tab import Tab
from app.ui.updates import QUIET
from core.catalogue.facts import Card, cards, find_card
from core.catalogue.what_fits import nearest_card, what_fits
from core.system.hardware import Device, device

EXAMPLE_CARD = "rtx-3060-12gb"
EXAMPLE_MODEL = "llama-3.1-8b"


class CardsTab(Tab):
    """The tab. All of it is known when it is built."""

    name, title = "cards", "What fits"

    def build(self) -> None:
        """Lay the tab out, with this machine's card chosen where it has one."""
        table, known, here = what_fits(), cards(), device()
        shown, is_same = first_card(here)
        by_size = sorted(known.values(), key=lambda each: each.memory_bytes)
        small_first = sorted(table.models.values(), key=lambda each: each.parameters)
        gr.HTML(cards_html.how(table), elem_classes="nb-slot")
        with gr.Row(elem_classes="nb-system"):
            with gr.Column(scale=1, min_width=320):
                gr.HTML("<h3>What can my card train?</h3>", elem_classes="nb-slot")
                card = gr.Dropdown(
                    [(each.title, each.name) for each in by_size],
                    value=shown.name,
                    label="Card",
                    info="All traced models, smallest first.",
                )
                gr.HTML(cards_html.machine(here, shown, is_same), elem_classes="nb-slot")
                models = gr.HTML(models_of(shown.name), elem_classes="nb-slot")
            with gr.Column(scale=1, min_width=320):
                gr.HTML("<h3>Which card does a model need?</h3>", elem_classes="nb-slot")
                model = gr.Dropdown(
                    [(each.title, each.name) for each in small_first],
                    value=EXAMPLE_MODEL,
                    label="Model",
                    info="All listed cards, least memory first.",
                )
                fitting = gr.HTML(cards_of(EXAMPLE_MODEL), elem_classes="nb-slot")
        card.change(models_of, card, models, **QUIET)
        model.change(cards_of, model, fitting, **QUIET)


def first_card(here: Device) -> tuple[Card, bool]:
    """The card to show first on the machine with that device, and whether it is its own."""
    if here.kind != "cuda":
        return find_card(EXAMPLE_CARD), False
    return nearest_card(here.name, here.total_bytes)


def models_of(card: str) -> str:
    """What a card can train, as a table."""
    return cards_html.on_card(what_fits().on_card(card))


def cards_of(model: str) -> str:
    """The cards that can train a model, as a table."""
    return cards_html.of_model(what_fits().of_model(model))
