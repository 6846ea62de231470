"""A workspace with links out of it, two files that are aimed at, and who sees whether they are opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.workspace import Workspace
from tests.security.path_tricks import Trick

SECRET = "the-canary-sings"


ROW = f'{{"prompt": "{SECRET}", "completion": "{SECRET}"}}\n'


WATCHED = {"open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir", "os.symlink", "shutil.copyfile"}


class Watch:
    """Every opening, listing or changing of what lies below one of `folders`, in this process."""

    def __init__(self) -> None:
        self.folders: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folders or event not in WATCHED:
            return
        for each in arguments[:2]:
            if not isinstance(each, (str, bytes, os.PathLike)):
                continue
            try:
                path = os.path.realpath(os.fsdecode(each))
            except (OSError, ValueError):
                continue
            if path.startswith(self.folders):
                self.seen.append(f"{event} {path}")


@dataclass
class Ground:
    """A workspace, what lies beside it, and who watches that. `targets` are the two files aimed at."""

    workspace: Workspace
    outside: Path
    targets: tuple[Path, Path]
    watch: Watch
    before: dict[str, tuple[float, int]] = field(default_factory=dict)

    def places(self, target: Path) -> dict[str, str]:
        """What stands in a trick for each place, where it aims at `target`."""
        root = self.workspace.datasets / self._links(target)
        return {
            "target": str(target),
            "bare": str(target).lstrip("/"),
            "tail": "/".join(target.parts[-2:]),
            "name": target.name,
            "folder": str(target.parent),
            "parent": target.parent.name,
            "root": str(root),
            "up": os.path.relpath(target, root),
            "home": os.path.relpath(target, Path.home()),
            "here": os.path.relpath(target, Path.cwd()),
            "lookalike": str(root).replace("datasets", "datаsets"),  # one letter is Cyrillic
            "capitals": str(target).upper(),
        }

    def tried(self, trick: Trick) -> Iterator[tuple[str, Path]]:
        """The trick as text, once for each target, and the target."""
        for target in self.targets:
            yield trick.text(self.places(target)), target

    @staticmethod
    def _links(target: Path) -> str:
        return f"links/to-{target.parent.name}"

    def lay_links(self) -> None:
        """In the workspace's own folder, for each target: links of every kind to it, and a pipe."""
        for target in self.targets:
            root = self.workspace.datasets / self._links(target)
            (root / "holder").mkdir(parents=True)
            (root / "own.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
            (root / "link").symlink_to(target)
            (root / "folder-link").symlink_to(target.parent)
            (root / "chain").symlink_to(root / "link")
            (root / "dotted-link").symlink_to(os.path.relpath(target, root))
            (root / "circle").symlink_to(root / "circle")
            (root / "holder" / "rows.jsonl").symlink_to(target)
            os.mkfifo(root / "pipe")

    def begin(self) -> None:
        """Watch from now on."""
        self.watch.folders = ()
        self.before = self._listing()
        self.watch.seen.clear()
        self.watch.folders = (str(self.outside), str(self.targets[1]))

    def refuse_traces(self, *where: Any) -> None:
        """Fail where a target was opened or changed, or where what it says is in what came back."""
        self.watch.folders = ()
        assert self.watch.seen == []
        assert self._listing() == self.before
        assert not any(SECRET in str(each) for each in where)

    def _listing(self) -> dict[str, tuple[float, int]]:
        files = [*self.outside.rglob("*"), self.targets[1]]
        return {str(file): (file.stat().st_mtime, file.stat().st_size) for file in files}


def lay(folder: Path, workspace: Workspace, watch: Watch) -> Ground:
    """The ground in `folder`, around `workspace`."""
    outside = (folder / "outside").resolve()
    outside.mkdir()
    targets = (outside / "canary.jsonl", workspace.state / "canary.jsonl")
    for target in targets:
        target.write_text(ROW)
    (outside / "config.json").write_text(f'{{"model_type": "{SECRET}"}}')
    (outside / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "base_model_name_or_path": "{SECRET}"}}')
    for name in ("model.safetensors", "adapter_model.safetensors", "README.md"):
        (outside / name).write_text(SECRET)
    made = Ground(workspace, outside, targets, watch)
    made.lay_links()
    return made
