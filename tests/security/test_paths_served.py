"""The same tricks against the app as it is served: through every event and route that takes a text, over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx
import pytest
from gradio.utils import get_type_hints

from app.arena.wire import ArenaTab
from app.chat.wire import ChatTab
from app.main import Server
from app.server.downloads import PREFIX
from app.server.guard import Guard
from core.errors import ChildError
from core.export import jobs
from core.runs.supervisor import Supervisor
from core.system.child_process import Child
from core.untrusted.paths import Reach
from core.workspace import ROOT
from tests.ended import ended_run
from tests.security.path_tricks import SAMPLE, TRICKS, Trick
from tests.security.routes import routes_of as routes_of
from tests.security.undone import undone
from tests.security.watched_ground import SECRET, Ground, Watch, lay

# The presses that name something which is looked up: a run, a dataset.
ACTS = ("open", "sample")
# What stands in these fields, so that an event gets as far as it can.
FILLED = {"Message": "Hello", "Prompt": "Hello", "Memory budget": 2.0}
# So many events are sent before their ends are waited for; the server takes on 300.
AT_ONCE = 100
# A stream of events that tells nothing for so long has told what a request leads to.
QUIET_SECONDS = 0.1
FIRST = {"load", "select", "then", "success"}


@dataclass(frozen=True)
class Call:
    """One event of a page: the inputs that differ from what stands there, by their ids, and what a press tells."""

    event: Any
    changed: dict[int, Any] = field(default_factory=dict)
    told: dict[str, Any] | None = None


@dataclass
class Client:
    """A page without a browser, and what the server handed on to other processes because of it."""

    server: Server
    guard: Guard
    filled: dict[str, Any]
    handed: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        port = self.guard.door.names.port
        cookies = {self.guard.door.cookie: str(self.guard.door.token)}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies=cookies, trust_env=False, timeout=30)
        # Thousands of events: this takes a quarter of what the other takes to send one.
        self.wire = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = {"Content-Type": "application/json", "Cookie": "; ".join(map("=".join, cookies.items()))}
        components = self.server.demo.config["components"]
        self.values = {each["id"]: each["props"].get("value") for each in components}
        self.session = os.urandom(6).hex()

    def events(self) -> list[Any]:
        """Every event that runs code on the server."""
        return [each for each in self.server.demo.fns.values() if each.fn is not None]

    def fill(self) -> None:
        """Open the page: menus are filled, and the server knows for this page what is in them."""
        for event in self.events():
            if {name for _, name in event.targets} & FIRST and not any(map(takes_text, event.inputs)):
                self.call([Call(event, {each._id: self.values.get(each._id) for each in event.inputs})])

    def call(self, calls: list[Call]) -> list[str]:
        """Send these events, a hundred at a time, and wait for their ends. Returns all that came back."""
        came = []
        for start in range(0, len(calls), AT_ONCE):
            self.wire.close()  # the server ends a connection that is idle for 5 s, as this one is while events end
            joined = [self._join(call) for call in calls[start : start + AT_ONCE]]
            came += [text for _, text in joined]
            waiting = {json.loads(text)["event_id"] for status, text in joined if status == 200}
            came += self._ends(waiting) if waiting else []
        return came

    def _join(self, call: Call) -> tuple[int, str]:
        data = [call.changed.get(each._id, self._value(each)) for each in call.event.inputs]
        sent = {"data": data, "fn_index": call.event._id, "session_hash": self.session, "event_data": call.told}
        body = json.dumps(sent).encode("utf-8", "surrogatepass")
        self.wire.request("POST", "/gradio_api/queue/join", body, self.headers)
        answer = self.wire.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")

    def _ends(self, waiting: set[str]) -> list[str]:
        came = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in _lines(stream):
                came.append(line)
                told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if told.get("msg") == "process_completed":
                    waiting.discard(told["event_id"])
                if not waiting:
                    break
        assert not waiting, came[-1]
        return came

    def _value(self, component: Any) -> Any:
        label = getattr(component, "label", None)
        return self.filled[label] if label in self.filled else self.values.get(component._id)

    def handed_paths(self) -> list[Path]:
        """Where the files lie that other processes were told to use."""
        found = []
        for request in self.handed:
            recipe, voice = request.get("recipe") or {}, request.get("chat_model") or {}
            paths = [recipe.get("model"), recipe.get("data", {}).get("path"), request.get("out")]
            paths += [voice.get(name) for name in ("model", "adapter", "tokenizer")]
            found += [(ROOT / Path(path).expanduser()).resolve() for path in paths if path and "\0" not in path]
        return found


def _lines(stream: httpx.Response) -> Iterator[str]:
    """The lines as a browser has them: what else ends a line for Python may be within a text."""
    rest = b""
    for block in stream.iter_raw():
        *lines, rest = (rest + block).split(b"\n")
        yield from (line.decode() for line in lines)


def takes_text(component: Any) -> bool:
    """Whether a request can put any text into this component."""
    typed = isinstance(component, (gr.Textbox, gr.File))
    return typed or bool(getattr(component, "allow_custom_value", False))


def as_value(component: Any, text: str) -> Any:
    """A text as this component's value: a file by its path."""
    if isinstance(component, gr.File):
        file = {"path": text, "meta": {"_type": "gradio.FileData"}}
        return file if component.file_count == "single" else [file]
    return [text] if getattr(component, "multiselect", False) else text


@pytest.fixture
def ground(server: Server, tmp_path: Path, watch: Watch) -> Iterator[Ground]:
    """Links in the served workspace, to what lies outside of it and to its keys."""
    laid = lay(tmp_path, server.context.workspace, watch)
    yield laid
    watch.folders = ()
    serving = _tab(server, ChatTab).serving
    if serving.serves:
        serving.toggle("")
    laid.targets[1].unlink()
    shutil.rmtree(server.context.workspace.datasets / "links")


@pytest.fixture
def client(server: Server, guard: Guard, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A page that is open. Nothing is trained, loaded or exported; what would be is written down."""
    run = ended_run(server.context.workspace, "Pirate")
    run.adapter.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (run.adapter / name).write_text("{}")
    made = Client(server, guard, {**FILLED, "Run": run.id})

    def ask(child: Child, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        made.handed.append(request)
        raise ChildError("There is no such process in this test.")
        yield {}

    monkeypatch.setattr(Child, "ask", ask)
    monkeypatch.setattr(Child, "start", lambda child: None)
    monkeypatch.setattr(Supervisor, "advance", lambda supervisor: None)
    monkeypatch.setattr(jobs, "start", lambda workspace, run_id, order: made.handed.append({"out": str(order.out)}))
    made.fill()
    with undone(server):
        yield made
        made.wire.close()
        made.http.close()


@contextmanager
def _mode(client: Client, listening: bool) -> Iterator[None]:
    """The same server as it is at the machine, or where others come in."""
    context = client.server.context
    own = context.reach
    object.__setattr__(context, "reach", Reach.of(context.workspace, listening))
    try:
        yield
    finally:
        object.__setattr__(context, "reach", own)


def _refuse_traces(client: Client, ground: Ground, came: list[str], listening: bool) -> None:
    _settle(client)
    shut = [ground.workspace.state, *([ground.outside] if listening else [])]
    gone = [path for path in client.handed_paths() if any(path.is_relative_to(each) for each in shut)]
    assert gone == []
    if not listening:  # what is outside may be used: only the keys may not
        ground.watch.seen = [each for each in ground.watch.seen if str(ground.targets[1]) in each]
    ground.refuse_traces(*([] if not listening else came))


def _settle(client: Client) -> None:
    """Wait for what the events have left to threads."""
    chat, arena = _tab(client.server, ChatTab), _tab(client.server, ArenaTab)
    ends = time.monotonic() + 20
    while any(job.busy for job in (chat.conversation, chat.comparison, arena.matches)) and time.monotonic() < ends:
        time.sleep(0.02)


def _tab(server: Server, kind: type[Any]) -> Any:
    """The tab of that kind, with what the server remembers for it."""
    return next(tab for tab in server.tabs if isinstance(tab, kind))


def _calls(client: Client, text: str) -> list[Call]:
    """`text` into each place for paths of each event, by itself, and into all its other texts at once."""
    calls = []
    for event in client.events():
        taking = [each for each in event.inputs if takes_text(each)]
        others = {each._id: as_value(each, text) for each in taking if each.label not in PLACES}
        calls += [Call(event, others)] if others else []
        for each in (each for each in taking if each.label in PLACES):
            calls += [Call(event, {each._id: as_value(each, way)}) for way in _ways(each.label, text)]
    return calls


def _ways(label: str, text: str) -> list[str]:
    """What is typed into a place so that it gets as far as it can: a folder, one that is new, a base to talk to."""
    folder = text.rpartition("/")[0]
    ways = {"Chat model": [folder, f"base:{text}", f"adapter:{folder}"], "Folder": [f"{text}-new"]}
    return [text, *ways.get(label, [folder])]


# The fields that take a path, by their labels.
PLACES = {"Base model", "Dataset", "Chat model", "Folder", "Or adapter folder", "Start from"}


def test_a_plain_path_in_any_text_of_any_event_leads_nowhere(client: Client, ground: Ground) -> None:
    labels = {each.label for event in client.events() for each in event.inputs if takes_text(each)}
    assert labels >= PLACES
    with _mode(client, listening=True):
        ground.begin()
        calls = _calls(client, str(ground.targets[0]))
        assert len(calls) > 100
        _refuse_traces(client, ground, client.call(calls), listening=True)


def _calls_for_paths(client: Client, text: str) -> list[Call]:
    """`text` into each place for paths, once for each callback that is handed it, and into what a press tells."""
    calls: dict[tuple[str, str, str], Call] = {}
    for event in client.events():
        called = getattr(event.fn, "__qualname__", repr(event.fn))
        for each in (each for each in event.inputs if takes_text(each) and each.label in PLACES):
            for way in _ways(each.label, text):
                calls.setdefault((called, each.label, way), Call(event, {each._id: as_value(each, way)}))
    presses = [Call(event, {}, {"act": act, "value": text}) for event in _pressed(client) for act in ACTS]
    return [*calls.values(), *presses]


@pytest.mark.full
@pytest.mark.parametrize("listening", [True, False], ids=["listening", "at the machine"])
def test_no_trick_leads_anywhere_through_the_served_app(client: Client, ground: Ground, listening: bool) -> None:
    """Where others come in, the file outside is aimed at; at the machine that may be used, so there it is the keys."""
    target = ground.targets[0] if listening else ground.targets[1]
    with _mode(client, listening):
        for trick in TRICKS:
            ground.begin()
            text = trick.text(ground.places(target))
            calls = _calls(client, text) if trick in SAMPLE else _calls_for_paths(client, text)
            _refuse_traces(client, ground, client.call(calls), listening)


def test_what_is_let_through_is_seen(client: Client, ground: Ground) -> None:
    """The watch itself: at the machine the file outside may be used, and then both the watch and the list know it."""
    ground.begin()
    client.call(_calls_for_paths(client, str(ground.outside)))
    _settle(client)
    assert any(str(ground.outside) in each for each in ground.watch.seen)
    assert any(path.is_relative_to(ground.outside) for path in client.handed_paths())


def test_a_press_that_names_a_path_opens_nothing(client: Client, ground: Ground) -> None:
    """What is drawn tells the server what was pressed: a run, a row, a sample, a way of the plan."""
    pressed, text = _pressed(client), str(ground.targets[0])
    assert len(pressed) >= 3
    told = [{"act": act, "value": text} for act in ACTS] + [{"change": f"data.path={text}"}]
    with _mode(client, listening=True):
        ground.begin()
        came = client.call([Call(event, {}, each) for event in pressed for each in told])
        _refuse_traces(client, ground, came, listening=True)


def _pressed(client: Client) -> list[Any]:
    return [event for event in client.events() if gr.EventData in get_type_hints(event.fn).values()]


def _addresses(server: Server) -> list[str]:
    """Every address of the app with something in it that a request chooses."""
    found = {path for path, method in routes_of(server.demo.app.routes) if "{" in path and method in ("GET", "HEAD")}
    return sorted(found | {f"{PREFIX}{{id}}/{{name}}", f"{PREFIX}{{path:path}}"})


def _asked(address: str, text: str) -> Iterator[str]:
    """The address with `text` in each of its places: as it is where that can be, in percent signs, and in those."""
    encoded = quote(text, safe="/", errors="replace")
    plain = [text] if text.isascii() and text.isprintable() and " " not in text else []
    for each in (*plain, encoded, quote(encoded, safe="/"), quote(text, safe="", errors="replace")):
        begun, *rest = address.split("{")
        yield begun + "".join(f"{each}{part.partition('}')[2]}" for part in rest)


def _body(wire: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> bytes:
    """What an answer holds. Of a stream of events, which has no end, all until it is quiet."""
    if "event-stream" not in answer.headers.get("content-type", ""):
        return answer.read()
    parts = []
    assert wire.sock is not None
    wire.sock.settimeout(QUIET_SECONDS)
    with suppress(TimeoutError):
        while part := answer.read1():
            parts.append(part)
    answer.close()
    wire.close()
    return b"".join(parts)


def _fetch_all(guard: Guard, ground: Ground, addresses: list[str], tricks: tuple[Trick, ...]) -> list[str]:
    names = guard.door.names
    wire = http.client.HTTPConnection("127.0.0.1", names.port, timeout=20)
    headers = {"Host": f"127.0.0.1:{names.port}", "Cookie": f"{guard.door.cookie}={guard.door.token}"}
    came = []
    for trick in tricks:
        for text, _ in ground.tried(trick):
            for asked in (each for address in addresses for each in _asked(address, text) if len(each) < 8_000):
                wire.putrequest("GET", asked, skip_host=True)
                for name, value in headers.items():
                    wire.putheader(name, value)
                wire.endheaders()
                answer = wire.getresponse()
                came.append(_body(wire, answer).decode("utf-8", "replace"))
                assert answer.status != 500, asked
                if answer.will_close:
                    wire.close()
    wire.close()
    return came


def test_no_address_leads_to_a_file_that_is_not_handed_out(server: Server, guard: Guard, ground: Ground) -> None:
    addresses = _addresses(server)
    assert {"/gradio_api/file={path_or_url:path}", "/static/{path:path}", "/assets/{path:path}"} <= set(addresses)
    ground.begin()
    came = _fetch_all(guard, ground, [each for each in addresses if "path" in each], SAMPLE[:8])
    ground.refuse_traces(*came)


@pytest.mark.full
def test_no_address_leads_there_by_any_trick(server: Server, guard: Guard, ground: Ground) -> None:
    for trick in TRICKS:
        ground.begin()
        ground.refuse_traces(*_fetch_all(guard, ground, _addresses(server), (trick,)))


def test_an_upload_lands_in_its_folder_whatever_it_is_called(client: Client, server: Server, ground: Ground) -> None:
    files = server.uploads.files
    ground.begin()
    for trick in SAMPLE:
        for text, _ in ground.tried(trick):
            name = text.encode("utf-8", "replace").replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A")
            body = (
                b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n\r\nrow\r\n--x--\r\n'
            )
            kind = {"content-type": "multipart/form-data; boundary=x"}
            answer = client.http.post("/gradio_api/upload", content=body, headers=kind)
            if answer.status_code == 200:
                kept = [Path(path).resolve() for path in answer.json()]
                assert all(path.is_relative_to(files) and len(path.relative_to(files).parts) == 2 for path in kept)
    ground.refuse_traces()
    assert sorted(path.name for path in files.parent.iterdir()) == ["files", "owner.lock"]
    assert not any(SECRET in path.read_text("utf-8", "replace") for path in files.rglob("*") if path.is_file())
