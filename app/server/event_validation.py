"""What an event may carry: the server checks every value by its component before any callback sees it.

The page checks too, but whoever holds the key can send an event without the page. Gradio's own components let through
texts of any length, numbers that are none, a nothing where a number is wanted, and files of other folders.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from types import NoneType
from typing import Any

import gradio as gr
from gradio.blocks import convert_component_dict_to_list
from gradio.components import Component
from gradio.state_holder import SessionState
from gradio.utils import get_type_hints, get_upload_folder

LONGEST_TEXT = 1_000_000
# Of what is typed into a menu: a folder, a model's id, a column's name.
LONGEST_CHOICE = 4_096
LONGEST_PRESS = 200
MOST_CHOSEN = 1_000
MOST_FILES = 1_000
# Beyond this a number on the way through JSON is no longer the one that was sent.
LARGEST_NUMBER = 1e15
NO_EVENT = "This page has no such event. Reload the page."
# Components that make of a value what a callback is handed, and of what it answers a value, without a file or a wait.
PLAIN = (gr.Slider, gr.Number, gr.Checkbox, gr.Dropdown, gr.Radio, gr.CheckboxGroup, gr.Textbox)
ABOUT_A_FILE = {"path", "url", "size", "orig_name", "mime_type", "is_stream", "meta"}


class CheckedBlocks(gr.Blocks):
    """A page whose events refuse what their components cannot hold: in one sentence, with nothing done.

    `in_sight` gives the properties, by component, that a page which is opened now has from the start.
    """

    in_sight: Callable[[], dict[int, dict[str, Any]]] = dict

    async def process_api(self, *arguments: Any, **how: Any) -> dict[str, Any]:
        """Answer one event. Raises gr.Error where it carries what cannot be."""
        event, inputs, state = how["block_fn"], how["inputs"], how.get("state")
        if state is not None:
            # Gradio keeps it of each page for links to a page as it stands, which are shut here.
            state.blocks_config.config_for_block = lambda *_: {}
        if how.get("iterator") is None:  # else it was looked at when it began
            message = refusal(event, inputs, state, how.get("event_data"))
            if message:
                raise gr.Error(message, title="Not possible", print_exception=False)
        return await super().process_api(*arguments, **how)

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """What a callback is handed. Gradio asks another thread for each value; an event may have 76 of them."""
        pairs = list(zip(block_fn.inputs, inputs, strict=True))
        plain = all(isinstance(each, (gr.State, *PLAIN)) or value is None for each, value in pairs)
        if state is None or not plain or block_fn.component_prop_inputs or not block_fn.preprocess:
            return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))
        return [state[each._id] if each.stateful else state[each._id].preprocess(value) for each, value in pairs]

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: SessionState | None) -> list[Any]:
        """What a page is told. Gradio asks a thread for each value, and builds anew also what stays as it is."""
        outputs = list(block_fn.outputs)
        answers = _in_order(outputs, predictions)
        if state is None or len(outputs) < 2 or len(answers) != len(outputs) or not block_fn.postprocess:
            return list(await super().postprocess_data(block_fn, predictions, state))
        values: list[Any] = [None if each.stateful else gr.skip() for each in outputs]
        others = []
        for at, (component, answer) in enumerate(zip(outputs, answers, strict=True)):
            if isinstance(component, (gr.HTML, *PLAIN)) and isinstance(answer, (str, int, float, NoneType)):
                values[at] = state[component._id].postprocess(answer)
            elif not _is_skip(answer):
                others.append(at)
        if others:
            fewer, new = copy(block_fn), [answers[at] for at in others]
            fewer.outputs = [outputs[at] for at in others]
            came = await super().postprocess_data(fewer, new if len(new) > 1 else new[0], state)
            for at, answer in zip(others, came, strict=True):
                values[at] = answer
        return values


def _in_order(outputs: list[Any], answers: Any) -> Sequence[Any]:
    """A callback's answers, one for each output; empty where they are given in another way than Gradio's own."""
    if _is_skip(answers):
        return [answers] * len(outputs)
    if isinstance(answers, dict) and answers:
        answers = convert_component_dict_to_list(outputs, answers)
    return answers if isinstance(answers, (list, tuple)) else []


def _is_skip(answer: Any) -> bool:
    return isinstance(answer, dict) and answer == gr.skip()


def refusal(event: Any, inputs: list[Any], state: SessionState | None, sent: gr.EventData | None) -> str:
    """Why this event cannot be answered, in one sentence; empty where it can."""
    if event.fn is None or len(inputs) != len(event.inputs):
        return NO_EVENT
    for component, value in zip(event.inputs, inputs, strict=True):
        if isinstance(component, gr.State):  # kept by the server: what is sent is not looked at
            continue
        shown = state[component._id] if state is not None and component._id in state else component
        message = fault(shown, value, may_be_empty=getattr(component, "value", None) is None)
        if message:
            return f"{shown.label or 'A setting'}: {message}"
    return "" if sent is None else _fault_of_press(event.fn, sent)


def fault(component: Component, value: Any, may_be_empty: bool = True) -> str:
    """Why `component` cannot hold `value`, in half a sentence; empty where it can.

    `may_be_empty`: for a menu, whether nothing may be chosen.
    """
    match component:
        case gr.Slider():
            return _fault_of_number(value, component.minimum, component.maximum)
        case gr.Number():
            return "" if value is None else _fault_of_number(value, component.minimum, component.maximum)
        case gr.Checkbox():
            return "" if isinstance(value, bool) else "it is on or off."
        case gr.Dropdown() | gr.Radio() | gr.CheckboxGroup():
            return _fault_of_choice(component, value, may_be_empty)
        case gr.File():
            return _fault_of_files(value, several=component.file_count != "single")
        case gr.Textbox():
            return "" if value is None else _fault_of_text(value, component.max_length or LONGEST_TEXT)
        case _:
            return "it cannot be set."


def _fault_of_number(value: Any, low: float | None, high: float | None) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "a number is expected."
    least = -LARGEST_NUMBER if low is None else low
    most = LARGEST_NUMBER if high is None else high
    if math.isfinite(value) and least <= value <= most:
        return ""
    return f"allowed is {least:g} to {most:g}." if low is not None and high is not None else "this number is too large."


def _fault_of_text(value: Any, longest: int) -> str:
    if not isinstance(value, str):
        return "text is expected."
    if len(value) > longest:
        return f"the text has {len(value):,} characters; {longest:,} are allowed."
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        return "the text contains an invalid character. Remove it or type the text again."
    return ""


def _fault_of_choice(component: Any, value: Any, may_be_empty: bool) -> str:
    many = isinstance(component, gr.CheckboxGroup) or bool(getattr(component, "multiselect", False))
    if not many:
        if value is None:
            typed = getattr(component, "allow_custom_value", False)
            return "" if typed or may_be_empty or not component.choices else "choose one from the menu."
        return _fault_of_chosen(component, value)
    if value is None and isinstance(component, gr.Dropdown):
        return ""
    most = getattr(component, "max_choices", None) or MOST_CHOSEN
    if not isinstance(value, list) or len(value) > most:
        return f"choose {most:,} of the menu at most."
    message = next((message for each in value if (message := _fault_of_chosen(component, each))), "")
    return message or ("" if len(set(value)) == len(value) else "each can be chosen once.")


def _fault_of_chosen(component: Any, value: Any) -> str:
    if getattr(component, "allow_custom_value", False) and isinstance(value, str):
        return _fault_of_text(value, LONGEST_CHOICE)
    # True is 1 to Python, and 1.0 is 1: a menu knows its own words only.
    there = any(type(value) is type(choice) and value == choice for _, choice in component.choices)
    return "" if there else "choose one from the menu. If it looks right, reload the page."


def _fault_of_files(value: Any, several: bool) -> str:
    if value is None:
        return ""
    files = value if several else [value]
    if not isinstance(files, list) or len(files) > MOST_FILES:
        return f"choose {MOST_FILES:,} files at most." if several else "choose one file."
    return "" if all(map(_is_upload, files)) else "the file was not uploaded here. Choose it again."


def _is_upload(file: Any) -> bool:
    """Whether this tells of a file which a page uploaded: none of another folder, nor of another machine."""
    path = file.get("path") if isinstance(file, dict) and file.keys() <= ABOUT_A_FILE else None
    if path is None or _fault_of_text(path, LONGEST_CHOICE):
        return False
    try:
        return Path(path).is_file() and Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, RuntimeError):
        return False


def _fault_of_press(callback: Any, sent: gr.EventData) -> str:
    """What an event tells besides its inputs is looked at only where the callback asks for it."""
    kinds = [kind for kind in get_type_hints(callback).values() if isinstance(kind, type)]
    if not any(issubclass(kind, gr.EventData) for kind in kinds):
        return ""
    edit = sent._data
    if not isinstance(edit, dict):
        return NO_EVENT
    if gr.EditData not in kinds:
        return ""
    index = edit.get("index")
    places = index if isinstance(index, list) and index else [index]
    placed = all(type(place) is int for place in places) and "previous_value" in edit
    return "" if placed and not _fault_of_text(edit.get("value"), LONGEST_TEXT) else NO_EVENT


def pressed(sent: gr.EventData, name: str) -> str:
    """What a press in drawn HTML says under `name`; empty where it says nothing, or what is no text or number."""
    value = sent._data.get(name) if isinstance(sent._data, dict) else None
    message = str(value) if isinstance(value, (str, int, float)) else ""
    return "" if _fault_of_text(message, LONGEST_PRESS) else message
