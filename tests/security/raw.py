"""Events sent as no page would send them: over HTTP, by their numbers, with whatever values."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.main import Server

# In a body as it goes over the wire: what json.dumps cannot write.
RAW = {"@1e999@": "1e999", "@deep@": "[" * 5_000 + "]" * 5_000, "@digits@": "9" * 5_000}
NO_NUMBERS = {"NaN": float("nan"), "infinity": float("inf"), "-infinity": float("-inf"), "1e999": "@1e999@"}
HUGE = {"deep": "@deep@", "digits": "@digits@", "long list": [0] * 100_000, "long text": "x" * 10_000_000}


def _file(path: str) -> dict[str, Any]:
    return {"path": path, "url": path, "orig_name": "x.zip", "meta": {"_type": "gradio.FileData"}}


ODD: dict[str, Any] = {
    "nothing": None,
    "true": True,
    "0": 0,
    "-1": -1,
    "a half": 0.5,
    "1e308": 1e308,
    "empty": "",
    "text": "no such thing",
    "markup": "<img src=x onerror=alert(1)>",
    "path": "../../../../etc/passwd",
    "much text": "y" * 1_000_001,
    "nul": "a\0b",
    "surrogate": "\ud800",
    "list": ["a", 1, None],
    "same twice": ["a", "a"],
    "object": {"value": 1},
    "file": _file("/etc/passwd"),
    "file elsewhere": _file("http://127.0.0.1:1/x"),
    "files": [_file("/etc/passwd"), _file("/etc/hostname")],
}
TOLD: tuple[Any, ...] = (
    None,
    "x",
    [],
    {},
    {"act": 1, "value": []},
    *({"act": "row", "value": value} for value in ("", "NaN", "-1", "1e9", "9" * 400, 7, None)),
    *({"act": "limit", "value": value} for value in ("0", "-5", "999999999", "x")),
    {"act": "format", "value": "zip"},
    {"act": "sample", "value": "/etc/passwd"},
    {"act": "more", "value": "no such code"},
    {"act": "open", "value": "../../state"},
    {"act": "page", "value": "²"},
    {"act": "page", "value": "9" * 199},
    {"act": "pick", "value": "x" * 10_000},
    {"act": "no such act", "value": "x"},
    *({"change": change} for change in ("", "=", "lora.rank=99999999", "lora.rank=x", "a.b=1", "budget=1e400GiB")),
    {"change": "lora.targets=[&a [x], *a]"},
    *({"index": index, "value": "x", "previous_value": ""} for index in (-1, 99, 10**12, [], [0, 0], "0", None, 1.5)),
    {"index": 0, "value": 5, "previous_value": ""},
    {"index": 0},
)


@dataclass(frozen=True)
class Event:
    """One event of the running app, as its own configuration tells of it."""

    id: int
    name: str
    inputs: tuple[int, ...]
    queued: bool
    collects: bool
    target: int


@dataclass
class Answer:
    """What came back: whether it was done, and else why not. `said` None is an error that nobody foresaw."""

    done: bool
    said: str | None


@dataclass
class Caller:
    """A client with the key."""

    client: httpx.Client
    components: dict[int, dict[str, Any]]
    events: list[Event]
    session: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        # For the tens of thousands of events: it takes a quarter of what httpx takes to send one.
        self.wire = http.client.HTTPConnection(self.client.base_url.host, self.client.base_url.port, timeout=60)
        cookies = "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())
        self.headers = {"Content-Type": "application/json", "Cookie": cookies}

    def close(self) -> None:
        """End its connections."""
        self.wire.close()
        self.client.close()

    @classmethod
    def of(cls, server: Server) -> Caller:
        """The app's events, from what it serves."""
        door = server.demo.app.middleware_stack.door
        home, key = f"http://127.0.0.1:{door.names.port}", {door.cookie: str(door.token)}
        client = httpx.Client(base_url=home, cookies=key, timeout=60)
        config = client.get("/config").json()
        components = {each["id"]: each for each in config["components"]}
        events = [
            Event(
                each["id"],
                each["api_name"],
                tuple(each["inputs"]),
                each["queue"] is not False,
                each["collects_event_data"],
                each["targets"][0][0] or 0,
            )
            for each in config["dependencies"]
            if each["backend_fn"]
        ]
        return cls(client, components, events)

    def kind(self, component: int) -> str:
        """What a component is: dropdown, number, …"""
        return str(self.components[component]["type"])

    def shown(self, event: Event) -> list[Any]:
        """What a page would send: what stands in the components at first, a model that is none."""
        values = []
        for each in event.inputs:
            props = self.components[each]["props"]
            values.append("no such model" if props.get("label") == "Base model" else props.get("value"))
        return values

    def ask(self, event: Event, bodies: Sequence[dict[str, Any]]) -> list[Answer]:
        """Send this event several times, and wait for all answers."""
        return self.ask_all([(event, body) for body in bodies])

    def ask_all(self, sent: Sequence[tuple[Event, dict[str, Any]]]) -> list[Answer]:
        """Send these events, and wait for all answers. Different ones are at work side by side."""
        answers: dict[str, Answer] = {}
        order = [self._send(event, body, answers) for event, body in sent]
        waiting = {name for name in order if name not in answers}
        if waiting:
            self._listen(waiting, answers)
        return [answers[name] for name in order]

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Post what json.dumps can write, and what it cannot."""
        text = json.dumps(body)
        for mark, raw in RAW.items():
            text = text.replace(f'"{mark}"', raw)
        return self.client.post(path, content=text.encode(), headers={"content-type": "application/json"})

    def _send(self, event: Event, body: dict[str, Any], answers: dict[str, Answer]) -> str:
        whole = {"fn_index": event.id, "session_hash": self.session, "trigger_id": event.target, **body}
        path = "/gradio_api/queue/join" if event.queued else "/gradio_api/run/predict"
        self.wire.request("POST", path, json.dumps(whole).encode(), self.headers)
        got = self.wire.getresponse()
        said = json.loads(got.read())
        if event.queued and got.status == 200:
            return str(said["event_id"])
        name = secrets.token_hex(6)
        answers[name] = Answer(got.status == 200, said.get("error", said.get("detail")))
        return name

    def _listen(self, waiting: set[str], answers: dict[str, Answer]) -> None:
        with self.client.stream("GET", f"/gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream.iter_lines():
                told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if told.get("msg") == "process_completed" and told["event_id"] in waiting:
                    waiting.discard(told["event_id"])
                    answers[told["event_id"]] = Answer(told["success"], (told["output"] or {}).get("error"))
                if not waiting:
                    return
        raise AssertionError(f"the server closed the stream with {len(waiting)} answers to come")
