"""What an event costs the server: nothing for what stays as it is, and nothing that is kept of it afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from app.server.event_validation import CheckedBlocks
from app.server.load_limits import calm


class Page:
    """Four components and a press whose answer is `answer`."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.handed: list[Any] = []
        with CheckedBlocks(analytics_enabled=False) as self.demo:
            self.name = gr.Textbox("a", label="Name")
            self.count = gr.Slider(0, 9, 1, label="Count")
            self.menu = gr.Dropdown(["x", "y"], label="Menu")
            self.kept = gr.State({"own": 1})
            parts = [self.name, self.count, self.menu, self.kept]
            gr.Button("Go").click(self.press, parts, parts)
        self.state = SessionState(self.demo)

    def press(self, *handed: Any) -> Any:
        """The callback."""
        self.handed = list(handed)
        return self.answer

    def send(self, answer: Any) -> list[Any]:
        """What the page is told where the callback answers this."""
        self.answer, event = answer, self.demo.fns[0]
        told = self.demo.process_api(block_fn=event, inputs=["b", 2, "x", None], state=self.state)
        return list(asyncio.run(told)["data"])

    def shown(self) -> list[Any]:
        """The components as the server knows them for this page."""
        return [self.state[each._id] for each in (self.name, self.count, self.menu)]


@pytest.fixture
def page() -> Page:
    """A page that nobody has used."""
    return Page()


def test_a_callback_is_handed_what_stands_there_and_what_the_server_keeps(page: Page) -> None:
    page.send([gr.skip()] * 4)
    assert page.handed == ["b", 2, "x", {"own": 1}]


@pytest.mark.parametrize("answer", [gr.skip(), [gr.skip()] * 4], ids=["in one", "one by one"])
def test_what_stays_as_it_is_is_not_built_anew(page: Page, answer: Any) -> None:
    before = page.shown()
    told = page.send(answer)
    assert told == [gr.skip(), gr.skip(), gr.skip(), None]
    assert all(now is then for now, then in zip(page.shown(), before, strict=True))
    assert page.state[page.kept._id] == {"own": 1}


def test_what_changes_is_told_in_its_place_and_known_from_then_on(page: Page) -> None:
    told = page.send({page.menu: gr.Dropdown(choices=["z"], value="z"), page.name: "c", page.kept: {"own": 2}})
    assert told[:2] == ["c", gr.skip()] and told[2]["value"] == "z" and told[3] is None
    assert page.shown()[2].choices == [("z", "z")] and page.state[page.kept._id] == {"own": 2}
    with pytest.raises(gr.Error):  # "x" is no longer in the menu
        page.send([gr.skip()] * 4)


def test_no_configuration_is_made_of_what_changes_for_links_that_are_shut(page: Page) -> None:
    page.send([gr.Textbox(label="Other"), gr.skip(), gr.Dropdown(choices=["x"]), {"own": 2}])
    kept = page.state.config_values
    assert [kept[each._id] for each in (page.name, page.menu, page.kept)] == [{}, {}, {}]


def test_the_queue_keeps_no_list_and_does_not_tell_all_of_each() -> None:
    with CheckedBlocks(analytics_enabled=False) as demo:
        gr.Button("Go").click(lambda: None)
    queue = demo.queue()._queue
    calm(queue)
    assert queue.ANALYTICS_MAX_EVENTS == 0 and not queue.live_updates and queue.update_intervals >= 1
