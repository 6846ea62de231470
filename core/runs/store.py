"""A run is a folder of plain files: make one, find one, list them, and read what they say.

States: queued, preparing, training, then finished, stopped, failed; `interrupted` is never written: whoever
reads derives it from a worker that is gone without a last word. Nothing here changes a run that is at work.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from core.errors import RunError
from core.process import is_alive
from core.recipe import Recipe, make_recipe
from core.workspace import Workspace, read_json, write_json

ACTIVE = frozenset({"preparing", "training"})
OPEN = ACTIVE | {"queued"}
ENDED = frozenset({"finished", "stopped", "failed", "interrupted"})
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


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


@dataclass(frozen=True)
class Run:
    """One run: its folder, and what the files in it say."""

    dir: Path

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
        try:
            values = yaml.safe_load((self.dir / "recipe.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(f"The recipe of run {self.id} cannot be read: {error}.") from None
        values.pop("dataset", None)
        return make_recipe(values)

    def write_recipe(self, recipe: Recipe) -> None:
        """Replace the settings of `recipe.yaml` in one step; the dataset stays."""
        beside = self.dir / ".recipe.yaml.partial"
        beside.write_text(_recipe_text(recipe, self.dataset()), encoding="utf-8")
        beside.replace(self.dir / "recipe.yaml")

    def base_revision(self) -> str | None:
        """The commit of the base model that the run began with; None before, and for a base in a folder."""
        revision = (read_json(self.dir / "base.json") or {}).get("revision")
        return str(revision) if revision else None

    def dataset(self) -> dict[str, Any]:
        """What `recipe.yaml` says of the dataset: `file`, from the run's folder; `sha256`; `name`."""
        values = yaml.safe_load((self.dir / "recipe.yaml").read_text(encoding="utf-8"))
        return dict(values["dataset"])

    def dataset_file(self) -> Path:
        """The workspace's copy of the dataset that the run trains on. Raises RunError where it is gone."""
        file = (self.dir / self.dataset()["file"]).resolve()
        if not file.exists():
            raise RunError(f"The dataset of run {self.id} is gone: {file.name} is no longer in the workspace.")
        return file

    def status(self) -> Status:
        """The present state, `interrupted` where the worker is gone without a last word."""
        values = read_json(self.dir / "status.json")
        if not isinstance(values, dict) or "state" not in values:
            return Status("interrupted", message="status.json is missing or damaged.")
        known = {key: values[key] for key in Status.__dataclass_fields__ if key in values}
        status = Status(**known)
        if status.state in ACTIVE and not is_alive(status.pid, status.pid_started):
            message = "The worker ended without a last word: killed, out of memory, or the machine went down."
            return Status(**{**known, "state": "interrupted", "message": message})
        return status

    def write_status(self, **changes: Any) -> None:
        """Replace `status.json`, keeping what is not in `changes`. The supervisor's and the worker's alone."""
        write_json(self.dir / "status.json", {**(read_json(self.dir / "status.json") or {}), **changes})

    def result(self) -> dict[str, Any]:
        """What the worker said at its end (`result.json`); empty before."""
        return read_json(self.dir / "result.json") or {}

    def plan(self) -> dict[str, Any]:
        """What was predicted and chosen before the run (`plan.json`); empty before."""
        return read_json(self.dir / "plan.json") or {}

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the worker's log."""
        try:
            text = (self.dir / "worker.log").read_bytes()[-65_536:].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.replace("\r", "\n").splitlines()[-lines:])

    def request(self, action: str) -> None:
        """Ask the worker for `stop` or `save`; it looks after every step."""
        write_json(self.dir / "control.json", {"action": action, "time": time.time()})

    def asked_since(self, moment: float) -> str | None:
        """What was asked of the worker after `moment`, in seconds since the epoch: `stop`, `save`, or None."""
        request = read_json(self.dir / "control.json")
        if not isinstance(request, dict) or request.get("time", 0) <= moment:
            return None
        return str(request.get("action"))

    def append(self, file: str, row: dict[str, Any]) -> None:
        """Append one line of JSON to one of the run's `.jsonl` files."""
        with (self.dir / file).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")

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
        except (json.JSONDecodeError, UnicodeDecodeError):
            return self._parse_each(written)
        if len(together) != len(written):  # halves that happen to make a whole
            return self._parse_each(written)
        return [row for row in together if isinstance(row, dict)]

    def _parse_each(self, lines: list[bytes]) -> list[dict[str, Any]]:
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                self.unreadable += 1
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows


def create_run(workspace: Workspace, recipe: Recipe, dataset: dict[str, Any], state: str = "queued") -> Run:
    """A new run's folder, in `state`. `dataset` says where its copy is kept and its hash."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    label = recipe.name or f"{Path(recipe.model).name} on {Path(recipe.data.path).stem}"
    slug = _NOT_IN_NAMES.sub("-", label.lower()).strip("-")[:40] or "run"
    folder = workspace.runs / f"{stamp}-{secrets.token_hex(2)}-{slug}"
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    (folder / "recipe.yaml").write_text(_recipe_text(recipe, dataset), encoding="utf-8")
    write_json(folder / "labels.json", {"name": label, "note": "", "tags": []})
    run = Run(folder)
    run.write_status(state=state, step=0, total=0)
    return run


def _recipe_text(recipe: Recipe, dataset: dict[str, Any]) -> str:
    return recipe.to_yaml() + yaml.safe_dump({"dataset": dataset}, sort_keys=False)


def list_runs(workspace: Workspace) -> list[Run]:
    """All runs, newest first."""
    named = [folder for folder in workspace.runs.iterdir() if not folder.name.startswith(".")]
    folders = [folder for folder in named if (folder / "recipe.yaml").is_file()]
    return [Run(folder) for folder in sorted(folders, reverse=True)]


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
