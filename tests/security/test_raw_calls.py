"""Every event, sent without a page: what no component can hold is refused by the server, and nothing changes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from app.main import Server
from app.ui.form import possible
from core.errors import NibbleError
from core.runs.supervisor import Supervisor
from core.system.child_process import Child
from core.workspace import Workspace, read_json
from tests.security.raw import HUGE, NO_NUMBERS, ODD, TOLD, Caller, Event
from tests.security.undone import undone

# What the page's settings are kept in: a text that a field can hold may be kept there.
DRAFTS = {"state/form.json", "state/chat.json", "state/arena.json", "state/talk.json", "state/compare.json"}
MOST_AT_ONCE = 100
EVENTS_AT_ONCE = 16
MEBIBYTE = 2**20


@pytest.fixture
def caller(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """A client with the key. Nothing trains, and the helper knows nothing."""

    def knows_nothing(self: Child, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        raise NibbleError("There is no such process here.")

    monkeypatch.setattr(Child, "ask", knows_nothing)
    monkeypatch.setattr(Child, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "advance", lambda self: None)
    with undone(server):
        yield (made := Caller.of(server))
        made.close()


@dataclass(frozen=True)
class Place:
    """One input of one event."""

    event: Event
    at: int

    @property
    def input(self) -> int:
        """The component's id."""
        return self.event.inputs[self.at]


def _kept(workspace: Workspace) -> dict[str, str]:
    """All that the workspace holds, by name, save what tells of the server itself."""
    files = {str(file.relative_to(workspace.path)): file for file in workspace.path.rglob("*") if file.is_file()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if "lock" not in name}


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _can_hold(component: dict[str, Any], value: Any) -> bool:
    """Whether a component as it is configured could come to hold this: told from its configuration alone."""
    props, kind = component["props"], component["type"]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    choices = [choice for _, choice in props.get("choices") or []]
    if kind == "state":
        return True
    if kind in ("number", "slider"):
        low, high = props.get("minimum"), props.get("maximum")
        if value is None:
            return kind == "number"
        return number and (-1e15 if low is None else low) <= value <= (1e15 if high is None else high)
    if kind == "checkbox":
        return isinstance(value, bool)
    if kind == "textbox":
        return value is None or (isinstance(value, str) and _is_text(value, props.get("max_length") or 1_000_000))
    if kind == "file":
        return value is None
    several = kind == "checkboxgroup" or props.get("multiselect")
    if value is None:
        nothing = bool(several or props.get("allow_custom_value")) or props.get("value") is None or not choices
        return nothing and kind != "checkboxgroup"
    if several:
        once = isinstance(value, list) and len(set(map(str, value))) == len(value)
        custom = bool(props.get("allow_custom_value"))
        return once and all(each in choices or (custom and isinstance(each, str)) for each in value)
    if props.get("allow_custom_value") and isinstance(value, str):
        return _is_text(value, 4096)
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _is_text(value: str, longest: int) -> bool:
    return len(value) <= longest and "\0" not in value and "\ud800" not in value


def _with(values: list[Any], at: int, value: Any) -> dict[str, Any]:
    return {"data": [*values[:at], value, *values[at + 1 :]]}


def _try(caller: Caller, workspace: Workspace, places: list[Place], odd: dict[str, Any]) -> list[str]:
    """Each of `odd` in each of the places. What was neither done nor refused in a sentence, or should have been."""
    faults = []
    for possible_now in (False, True):
        tries = [
            (place, name, value)
            for name, value in odd.items()
            for place in places
            if _can_hold(caller.components[place.input], value) is possible_now
        ]
        before = _kept(workspace)
        for start in range(0, len(tries), MOST_AT_ONCE):
            some = tries[start : start + MOST_AT_ONCE]
            answers = caller.ask_all(
                [(place.event, _with(caller.shown(place.event), place.at, value)) for place, _, value in some]
            )
            for (place, name, _), answer in zip(some, answers, strict=True):
                where = f"{place.event.name} ({place.event.id}), {caller.components[place.input]['props'].get('label')}"
                if not (answer.done or answer.said):
                    faults.append(f"{where}: {name}: an error that nobody foresaw")
                if answer.done and not possible_now:
                    faults.append(f"{where}: {name} was taken")
        changed = _changed(before, _kept(workspace))
        if possible_now:  # "Use as dataset" keeps the conversation, which is there for it
            changed = {name for name in changed if name not in DRAFTS and not name.startswith("datasets/")}
        if changed:
            faults.append(f"{sorted({place.event.name for place in places})} changed {changed}")
    return faults


def _places(events: list[Event]) -> list[Place]:
    """Where something can be put; neighbours are of different events, as each event is at work once at a time."""
    seen, found = set[tuple[str, tuple[int, ...]]](), []
    for event in events:
        same = (event.name.rstrip("_0123456789"), event.inputs)  # one callback that several presses lead to
        inputs = range(len(event.inputs) if same not in seen else min(2, len(event.inputs)))
        seen.add(same)
        found += [Place(event, at) for at in inputs]
    return sorted(found, key=lambda place: place.at)


def _unsound(workspace: Workspace) -> list[str]:
    """What is kept of the form although no recipe could have it."""
    kept = read_json(workspace.state / "form.json") or {}
    return [f"kept: {key}" for key, value in kept.items() if possible({key: value}) != {key: value}]


def test_each_component_is_checked_by_the_server(
    caller: Caller, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace, seen, faults = server.context.workspace, set[int](), []
    few = {name: ODD[name] for name in ("1e308", "list")}
    for event in caller.events:
        fresh = [at for at, each in enumerate(event.inputs) if each not in seen and caller.kind(each) != "state"]
        seen.update(event.inputs)
        if fresh:
            faults += _try(caller, workspace, [Place(event, at) for at in fresh], few)
    assert not (faults + _unsound(workspace))
    kinds = {caller.kind(each) for each in seen}
    assert kinds >= {"dropdown", "number", "slider", "radio", "checkbox", "checkboxgroup", "textbox", "file"}
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_no_json_too_large_or_no_event_is_refused_at_the_door(
    caller: Caller, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    before = _kept(server.context.workspace)
    event = max(caller.events, key=lambda each: len(each.inputs))
    for name, odd in {**NO_NUMBERS, **HUGE}.items():
        began = time.monotonic()
        for body in (_with(caller.shown(event), 0, odd), {"data": [], "event_data": odd}, {"data": odd}):
            got = caller.post("/gradio_api/queue/join", {"fn_index": event.id, "session_hash": "a", **body})
            assert got.status_code in (400, 413) and got.json()["detail"].endswith("."), name
        assert time.monotonic() - began < 10, name
    for number in (-1, 10**6, "start", "1", 1.5, True, [], {}):
        assert caller.post("/gradio_api/queue/join", {"data": [], "fn_index": number}).status_code == 404
    for session in ("", "x" * 65, "../..", "a b", 5, ["a"]):
        body = {"data": [], "fn_index": event.id, "session_hash": session}
        assert caller.post("/gradio_api/queue/join", body).status_code == 400
    assert "Traceback" not in capfd.readouterr().err
    assert _changed(before, _kept(server.context.workspace)) == set()


@pytest.mark.full
def test_an_event_tells_what_a_page_would_tell_or_nothing_happens(
    caller: Caller, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    for event in (each for each in caller.events if each.collects):
        bodies = [{"data": caller.shown(event), "event_data": told} for told in TOLD]
        for told, answer in zip(TOLD, caller.ask(event, bodies), strict=True):
            assert answer.done or answer.said, f"{event.name} ({event.id}): {told}"
        assert not _unsound(server.context.workspace)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.full
def test_every_event_wants_as_many_values_as_it_has_inputs(
    caller: Caller, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    before = _kept(server.context.workspace)
    for event in caller.events:
        values = caller.shown(event)
        bodies = [
            {"data": [*values, None]},
            {"data": [*values, *values, 1, 2]},
            *([{"data": values[1:]}] if values else []),
        ]
        for answer in caller.ask(event, bodies):
            assert not answer.done and answer.said, f"{event.name} ({event.id})"
    assert "Traceback" not in capfd.readouterr().err
    assert _changed(before, _kept(server.context.workspace)) == set()


@pytest.mark.full
def test_every_event_refuses_what_cannot_be(caller: Caller, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    workspace, process = server.context.workspace, psutil.Process()
    began = process.memory_info().rss
    faults = []
    for start in range(0, len(caller.events), EVENTS_AT_ONCE):
        some = caller.events[start : start + EVENTS_AT_ONCE]
        places = [place for place in _places(caller.events) if place.event in some]
        faults += _try(caller, workspace, places, ODD)
        faults += _unsound(workspace)
        said = capfd.readouterr().err
        names = [f"{event.name} ({event.id})" for event in some]
        faults += [f"{names}: {said[-3000:]}"] if "Traceback" in said else []
    assert not faults, "\n".join(faults)
    grown = process.memory_info().rss - began
    assert grown < 150 * MEBIBYTE, f"{grown / MEBIBYTE:.0f} MiB more than before"
