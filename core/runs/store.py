"""A run is a folder of plain files: reads what they say, and writes what the worker and the user put there.

States: queued, preparing, training, then finished, stopped, failed; `interrupted` is never written: readers
derive it from a worker that is gone without a final status. Nothing here changes an active run.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from core.errors import RunError
from core.recipe import Recipe, recipe_of_run
from core.system.full_disk import Lines, is_disk_full
from core.system.process import is_alive
from core.text.library_errors import ended_by_bitsandbytes, telling_line
from core.workspace import SCAN_SECONDS, patiently, read_json, write_json

ACTIVE = frozenset({"preparing", "training"})
OPEN = ACTIVE | {"queued"}
ENDED = frozenset({"finished", "stopped", "failed", "interrupted"})
# A file in the workspace's state that is touched when a run is queued or started.
OPENED = "opened"
GONE = "The worker ended unexpectedly: it was killed, ran out of memory, or the machine went down."
GONE_BY_CUDA = (
    "bitsandbytes ended the worker at an error of CUDA, after which nothing could be saved: {}. Resume the run; if it "
    "happens again, run `python launch.py doctor`, or choose train.optimizer=adamw."
)
_LINES = Lines()
# The safe loader, in C where libyaml is there: ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Status:
    """What `status.json` says, with `interrupted` derived. Times are seconds since the epoch."""

    state: str
    step: int = 0
    total: int = 0
    pid: int | None = None
    pid_started: float | None = None
    heartbeat: float | None = None
    started: float | None = None
    ended: float | None = None
    resumed_from_step: int | None = None
    message: str = ""

    @property
    def active(self) -> bool:
        """Whether a worker is running."""
        return self.state in ACTIVE


def _is_sound(values: dict[str, Any]) -> bool:
    """Whether these can be the values of a status.json."""
    numbers = (values.get(key) for key in Status.__dataclass_fields__ if key not in ("state", "message"))
    state, counts = values.get("state"), (values.get("step", 0), values.get("total", 0))
    return (
        isinstance(state, str)
        and state in OPEN | ENDED
        and isinstance(values.get("message", ""), str)
        and all(isinstance(count, int) for count in counts)
        and all(number is None or isinstance(number, (int, float)) for number in numbers)
    )


def _write_over(file: Path, values: dict[str, Any]) -> None:
    """A full disk has no room for a new file beside the old one: write over the old one's bytes, in one go."""
    text = json.dumps(values, ensure_ascii=False).encode()
    with file.open("r+b", buffering=0) as handle:
        handle.write(text.ljust(file.stat().st_size))


@dataclass(frozen=True)
class Request:
    """A request to the worker: `stop` or `save`; its time distinguishes it from the previous one.

    `at` is the same moment on the system's monotonic clock, which nobody sets.
    """

    action: str
    time: float
    at: float


@dataclass(frozen=True)
class Run:
    """One run: its folder and its files."""

    dir: Path
    # What this process has last said of the run: enough to say it again where status.json has been damaged.
    _said: dict[str, Any] = field(init=False, default_factory=dict, repr=False, compare=False)
    _unsaid: dict[str, Any] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The run's id: the folder's name."""
        return self.dir.name

    @property
    def name(self) -> str:
        """The user's name for it."""
        return str(self.labels().get("name") or self.id)

    def labels(self) -> dict[str, Any]:
        """The user's `name`, `note` and `tags` (`labels.json`); empty where that is missing or damaged."""
        labels = read_json(self.dir / "labels.json")
        return labels if isinstance(labels, dict) else {}

    def write_labels(self, name: str, note: str, tags: list[str]) -> None:
        """Replace the user's labels atomically. An empty `name` means the run's ID."""
        write_json(self.dir / "labels.json", {"name": name, "note": note, "tags": tags})

    @property
    def workspace(self) -> Path:
        """The folder of the workspace that the run is in."""
        return self.dir.parent.parent

    @property
    def adapter(self) -> Path:
        """Where the trained adapter is, once there is one."""
        return self.dir / "adapter"

    @property
    def start(self) -> Path:
        """Where the adapter is that the run began with, if it continues one."""
        return self.dir / "start"

    @property
    def has_adapter(self) -> bool:
        """Whether there is a result to chat with."""
        return (self.adapter / "adapter_config.json").is_file()

    @property
    def created(self) -> float:
        """When the run was made, in seconds since the epoch."""
        stamp = self.id.split("-", 2)[:2]
        try:
            made = datetime.strptime("-".join(stamp), "%Y%m%d-%H%M%S")
        except ValueError:
            return self.dir.stat().st_mtime
        return made.replace(tzinfo=UTC).timestamp()

    def recipe(self) -> Recipe:
        """The settings. Raises RunError where the file is missing or damaged."""
        values = self._recipe_file()
        values.pop("dataset", None)
        return recipe_of_run(values)

    def _recipe_file(self) -> dict[str, Any]:
        try:
            values = yaml.load((self.dir / "recipe.yaml").read_text(encoding="utf-8"), Loader=_LOADER)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(f"recipe.yaml of run {self.id} cannot be read: {telling_line(error)}.") from None
        if not isinstance(values, dict) or not isinstance(values.get("dataset"), dict):
            raise RunError(
                f"recipe.yaml of run {self.id} is damaged: it no longer contains the settings and the dataset."
            )
        return values

    def _read(self, file: str) -> dict[str, Any]:
        """A JSON file of the run; empty where it is missing or damaged."""
        values = read_json(self.dir / file)
        return values if isinstance(values, dict) else {}

    def write_recipe(self, recipe: Recipe) -> None:
        """Replace the settings in `recipe.yaml` atomically; the dataset stays."""
        beside = self.dir / ".recipe.yaml.partial"
        beside.write_text(recipe_text(recipe, self.dataset()), encoding="utf-8")
        patiently(lambda: beside.replace(self.dir / "recipe.yaml"))

    def base_revision(self) -> str | None:
        """The commit of the base model that the run began with; None before, and for a base in a folder."""
        revision = self._read("base.json").get("revision")
        return str(revision) if revision else None

    def dataset(self) -> dict[str, Any]:
        """What `recipe.yaml` says of the dataset: `file`, from the run's folder; `sha256`; `name`. Raises RunError."""
        return dict(self._recipe_file()["dataset"])

    def dataset_file(self) -> Path:
        """The workspace's copy of the dataset that the run trains on. Raises RunError where it is gone."""
        file = (self.dir / str(self.dataset().get("file"))).resolve()
        if not file.is_relative_to((self.workspace / "datasets").resolve()):
            raise RunError(f"recipe.yaml of run {self.id} names data outside the workspace, which is not allowed.")
        if not file.exists():
            raise RunError(f"The dataset of run {self.id} is missing: {file.name} is no longer in the workspace.")
        return file

    def status(self) -> Status:
        """The current state, `interrupted` where the worker is gone without a final status."""
        values = self._read("status.json")
        if not _is_sound(values):
            return Status("interrupted", message="status.json is missing or damaged.")
        known = {key: values[key] for key in Status.__dataclass_fields__ if key in values}
        status = Status(**known)
        if status.state in ACTIVE and not is_alive(status.pid, status.pid_started):
            return Status(**{**known, "state": "interrupted", "message": self._why_gone(status)})
        return status

    def _why_gone(self, status: Status) -> str:
        """Why a worker that said nothing is gone, as far as the end of its log tells."""
        log = self.dir / "worker.log"
        with contextlib.suppress(OSError):
            ended = ended_by_bitsandbytes(self.log_tail()) if log.stat().st_mtime >= (status.started or 0) else None
            if ended is not None:
                return GONE_BY_CUDA.format(ended)
        return GONE

    def write_status(self, **changes: Any) -> None:
        """Replace `status.json`, keeping what is not in `changes`. For the supervisor and the worker only.

        What cannot be written on Windows, while another process reads the file, comes with the next call; a change
        of state is retried for longer instead, except the first, which the worker writes too.
        """
        file = self.dir / "status.json"

        def put() -> None:
            before = self._read("status.json")
            self._said.update({**(before if _is_sound(before) else self._said), **self._unsaid, **changes})
            write_json(file, self._said)

        try:
            patiently(put, 0.0 if changes.get("state") in (None, "preparing") else SCAN_SECONDS)
        except OSError as error:
            if sys.platform == "win32" and isinstance(error, PermissionError) and "state" not in changes:
                self._unsaid.update(changes)
                return
            if not is_disk_full(error):
                raise
            _write_over(file, self._said)
        self._unsaid.clear()
        if changes.get("state") in OPEN:  # whoever keeps in mind which runs have ended looks again
            with contextlib.suppress(OSError):
                (self.workspace / "state" / OPENED).touch()

    def result(self) -> dict[str, Any]:
        """What the worker wrote at its end (`result.json`); empty before."""
        return self._read("result.json")

    def plan(self) -> dict[str, Any]:
        """What was predicted and chosen before the run (`plan.json`); empty before."""
        return self._read("plan.json")

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the worker's log."""
        try:
            with (self.dir / "worker.log").open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 65_536))
                text = log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.replace("\r", "\n").splitlines()[-lines:])

    def request(self, action: str) -> None:
        """Ask the worker to `stop` or `save`; it checks after every step."""
        file, asked = self.dir / "control.json", {"action": action, "time": time.time(), "at": time.monotonic()}
        try:
            write_json(file, asked)
        except OSError as error:
            if not is_disk_full(error) or not file.exists():
                raise
            _write_over(file, asked)

    def asked(self) -> Request | None:
        """The newest request to the worker, obeyed or not; None where it is missing or damaged.

        Requests are removed when the run is started, or queued again.
        """
        request = self._read("control.json")
        times = [request.get(key) for key in ("time", "at")]
        if not isinstance(request.get("action"), str) or not all(isinstance(each, (int, float)) for each in times):
            return None
        return Request(request["action"], request["time"], request["at"])

    def is_to_stop(self) -> bool:
        """Whether the newest request is to stop."""
        request = self.asked()
        return request is not None and request.action == "stop"

    def append(self, file: str, row: dict[str, Any]) -> None:
        """Append one line of JSON to one of the run's `.jsonl` files."""
        _LINES.append(self.dir / file, (json.dumps(row, ensure_ascii=False) + "\n").encode())

    def flush(self) -> None:
        """Flush every line to the disk. Raises OSError where there is no room for one."""
        _LINES.flush(sorted(self.dir.glob("*.jsonl")))

    @staticmethod
    def has_lines_waiting() -> bool:
        """Whether a full disk keeps lines of this process from being written."""
        return _LINES.waiting

    def event(self, kind: str, message: str) -> None:
        """Add an event for the user."""
        self.append("events.jsonl", {"time": time.time(), "kind": kind, "message": message})


def recipe_text(recipe: Recipe, dataset: dict[str, Any]) -> str:
    """What `recipe.yaml` holds: every setting, and which copy of the dataset they are for."""
    return recipe.to_yaml() + yaml.safe_dump({"dataset": dataset}, sort_keys=False)
