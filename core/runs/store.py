"""A run is a folder of plain files: make one, find one, list them, and read what they say.

States: queued, preparing, training, then finished, stopped, failed; `interrupted` is never written: whoever
reads derives it from a worker that is gone without a last word. Nothing here changes a run that is at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from core.disk import Lines, free_some, is_disk_full
from core.errors import RunError
from core.process import is_alive
from core.recipe import Recipe, make_recipe
from core.workspace import Workspace, read_json, write_json

ACTIVE = frozenset({"preparing", "training"})
OPEN = ACTIVE | {"queued"}
ENDED = frozenset({"finished", "stopped", "failed", "interrupted"})
# A file in the workspace's state that is touched when a run is queued or started.
OPENED = "opened"
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
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
        """Whether a worker is at it now."""
        return self.state in ACTIVE


def _is_sound(values: dict[str, Any]) -> bool:
    """Whether this is what a status.json says, as far as one can tell."""
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
    """Something that was asked of the worker: `stop` or `save`; its time tells it from the one before.

    `at` is the same moment on the system's monotonic clock, which nobody sets.
    """

    action: str
    time: float
    at: float


@dataclass(frozen=True)
class Run:
    """One run: its folder, and what the files in it say."""

    dir: Path
    # What this process has last said of the run: enough to say it again where status.json has been damaged.
    _said: dict[str, Any] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The run's id: the folder's name."""
        return self.dir.name

    @property
    def name(self) -> str:
        """What the person calls it."""
        return str(self.labels().get("name") or self.id)

    def labels(self) -> dict[str, Any]:
        """What the person wrote on it (`labels.json`): `name`, `note`, `tags`; empty where that is gone or damaged."""
        labels = read_json(self.dir / "labels.json")
        return labels if isinstance(labels, dict) else {}

    def write_labels(self, name: str, note: str, tags: list[str]) -> None:
        """Replace what the person wrote on it, in one step. An empty `name` means the run's id."""
        write_json(self.dir / "labels.json", {"name": name, "note": note, "tags": tags})

    @property
    def workspace(self) -> Path:
        """The folder of the workspace that the run is in."""
        return self.dir.parent.parent

    @property
    def adapter(self) -> Path:
        """Where the result is, once there is one."""
        return self.dir / "adapter"

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
        return made.replace(tzinfo=timezone.utc).timestamp()

    def recipe(self) -> Recipe:
        """The exact settings. Raises RunError where the file is gone or damaged."""
        values = self._recipe_file()
        values.pop("dataset", None)
        return make_recipe(values)

    def _recipe_file(self) -> dict[str, Any]:
        try:
            values = yaml.load((self.dir / "recipe.yaml").read_text(encoding="utf-8"), Loader=_LOADER)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(f"recipe.yaml of run {self.id} cannot be read: {error}.") from None
        if not isinstance(values, dict) or not isinstance(values.get("dataset"), dict):
            raise RunError(f"recipe.yaml of run {self.id} is damaged: it no longer holds the settings and the dataset.")
        return values

    def _read(self, file: str) -> dict[str, Any]:
        """A JSON file of the run; empty where there is none, or it is damaged."""
        values = read_json(self.dir / file)
        return values if isinstance(values, dict) else {}

    def write_recipe(self, recipe: Recipe) -> None:
        """Replace the settings of `recipe.yaml` in one step; the dataset stays."""
        beside = self.dir / ".recipe.yaml.partial"
        beside.write_text(_recipe_text(recipe, self.dataset()), encoding="utf-8")
        beside.replace(self.dir / "recipe.yaml")

    def base_revision(self) -> str | None:
        """The commit of the base model that the run began with; None before, and for a base in a folder."""
        revision = self._read("base.json").get("revision")
        return str(revision) if revision else None

    def dataset(self) -> dict[str, Any]:
        """What `recipe.yaml` says of the dataset: `file`, from the run's folder; `sha256`; `name`. Raises RunError."""
        return dict(self._recipe_file()["dataset"])

    def dataset_file(self) -> Path:
        """The workspace's copy of the dataset that the run trains on. Raises RunError where it is gone."""
        file = (self.dir / self.dataset()["file"]).resolve()
        if not file.exists():
            raise RunError(f"The dataset of run {self.id} is gone: {file.name} is no longer in the workspace.")
        return file

    def status(self) -> Status:
        """The present state, `interrupted` where the worker is gone without a last word."""
        values = self._read("status.json")
        if not _is_sound(values):
            return Status("interrupted", message="status.json is missing or damaged.")
        known = {key: values[key] for key in Status.__dataclass_fields__ if key in values}
        status = Status(**known)
        if status.state in ACTIVE and not is_alive(status.pid, status.pid_started):
            message = "The worker ended without a last word: killed, out of memory, or the machine went down."
            return Status(**{**known, "state": "interrupted", "message": message})
        return status

    def write_status(self, **changes: Any) -> None:
        """Replace `status.json`, keeping what is not in `changes`. The supervisor's and the worker's alone."""
        file, before = self.dir / "status.json", self._read("status.json")
        self._said.update({**(before if _is_sound(before) else self._said), **changes})
        try:
            write_json(file, self._said)
        except OSError as error:
            if not is_disk_full(error):
                raise
            _write_over(file, self._said)
        if changes.get("state") in OPEN:  # whoever keeps in mind which runs have ended looks again
            with contextlib.suppress(OSError):
                (self.workspace / "state" / OPENED).touch()

    def result(self) -> dict[str, Any]:
        """What the worker said at its end (`result.json`); empty before."""
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
        """Ask the worker for `stop` or `save`; it looks after every step."""
        file, asked = self.dir / "control.json", {"action": action, "time": time.time(), "at": time.monotonic()}
        try:
            write_json(file, asked)
        except OSError as error:
            if not is_disk_full(error) or not file.exists():
                raise
            _write_over(file, asked)

    def asked(self) -> Request | None:
        """The newest request to the worker, obeyed or not; None where there is none, or it is damaged.

        One that was there before the run was started, or put back into the queue, has been taken away by then.
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
        """See to it that every line is on the disk itself. Raises OSError where there is no room for one."""
        _LINES.flush(sorted(self.dir.glob("*.jsonl")))

    @staticmethod
    def has_lines_waiting() -> bool:
        """Whether a full disk keeps lines of this process from being written."""
        return _LINES.waiting

    def event(self, kind: str, message: str) -> None:
        """Tell the person what happened."""
        self.append("events.jsonl", {"time": time.time(), "kind": kind, "message": message})


@dataclass
class Tail:
    """Reads what was appended to a `.jsonl` file since the last call: a tick costs only what is new."""

    path: Path
    position: int = 0
    unreadable: int = 0
    restarts: int = 0
    waiting_bytes: int = 0
    _rest: bytes = field(default=b"", repr=False)
    _file: int | None = field(default=None, repr=False)

    def read(self, most_bytes: int | None = None) -> list[dict[str, Any]]:
        """The new whole lines, of at most `most_bytes`; `waiting_bytes` says what is left for the next call.

        A line cut off by a crash waits for its end; a damaged one is counted. A file that was replaced or cut back,
        as a resume does it, is read from its start again; `restarts` counts that.
        """
        try:
            with self.path.open("rb") as handle:
                self._look_at(handle)
                fresh = handle.read(-1 if most_bytes is None else most_bytes)
                self.waiting_bytes = max(0, os.fstat(handle.fileno()).st_size - handle.tell())
        except FileNotFoundError:
            self.waiting_bytes = 0
            return []
        self.position += len(fresh)
        *whole, self._rest = (self._rest + fresh).split(b"\n")
        return self._parse(whole)

    def _look_at(self, handle: BinaryIO) -> None:
        found = os.fstat(handle.fileno())
        if found.st_size < self.position or (self._file is not None and found.st_ino != self._file):
            self.position, self._rest = 0, b""
            self.restarts += 1
        self._file = found.st_ino
        handle.seek(self.position)

    def _parse(self, lines: list[bytes]) -> list[dict[str, Any]]:
        """All at once, which is the fast way; line by line where one of them is damaged."""
        written = [line for line in lines if line]
        try:
            together = json.loads(b"[" + b",".join(written) + b"]")
        except (ValueError, RecursionError):
            return self._parse_each(written)
        if len(together) != len(written):  # halves that happen to make a whole
            return self._parse_each(written)
        return [row for row in together if isinstance(row, dict)]

    def _parse_each(self, lines: list[bytes]) -> list[dict[str, Any]]:
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                self.unreadable += 1
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows


def create_run(workspace: Workspace, recipe: Recipe, dataset: dict[str, Any], state: str = "queued") -> Run:
    """A new run's folder, in `state`: whole or not there. `dataset` says where its copy is kept and its hash.

    Raises RunError where the disk is full.
    """
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    label = recipe.name or f"{Path(recipe.model).name} on {Path(recipe.data.path).stem}"
    slug = _NOT_IN_NAMES.sub("-", label.lower()).strip("-")[:40] or "run"
    folder = workspace.runs / f"{stamp}-{secrets.token_hex(2)}-{slug}"
    beside = folder.with_name(f".new-{folder.name}")
    try:
        (beside / "checkpoints").mkdir(parents=True)
        (beside / "recipe.yaml").write_text(_recipe_text(recipe, dataset), encoding="utf-8")
        write_json(beside / "labels.json", {"name": label, "note": "", "tags": []})
        Run(beside).write_status(state=state, step=0, total=0)
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not is_disk_full(error):
            raise
        raise RunError(f"The disk is full: no run could be made. {free_some(workspace.path)}") from None
    return Run(folder)


def _recipe_text(recipe: Recipe, dataset: dict[str, Any]) -> str:
    return recipe.to_yaml() + yaml.safe_dump({"dataset": dataset}, sort_keys=False)


def list_runs(workspace: Workspace) -> list[Run]:
    """All runs, newest first."""
    runs = workspace.runs
    named = sorted((name for name in os.listdir(runs) if not name.startswith(".")), reverse=True)  # noqa: PTH208
    # Of ten thousand a Path each would take most of the time.
    return [Run(runs / name) for name in named if os.path.isfile(f"{runs}/{name}/recipe.yaml")]  # noqa: PTH113


def find_run(workspace: Workspace, wanted: str) -> Run:
    """The run with this id, a unique prefix of it, or `last`. Raises RunError naming what there is."""
    runs = list_runs(workspace)
    if not runs:
        raise RunError("There are no runs yet. Train one first: python launch.py train quickstart")
    if wanted == "last":
        return runs[0]
    found = [run for run in runs if run.id == wanted] or [run for run in runs if run.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RunError(f"There is no run {wanted!r}. The newest is {runs[0].id}; `runs` lists all.")
    raise RunError(f"{wanted!r} could be any of {', '.join(run.id for run in found[:4])}. Give more of the id.")
