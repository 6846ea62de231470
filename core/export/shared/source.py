"""What is exported: one of a run's adapters, the base that it belongs to, and how the chat holds that. No torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.basemodel.download import DownloadStopped, download
from core.basemodel.find import FoundModel, find_model
from core.basemodel.pin import FILE, change_of, read_pin
from core.errors import ModelError, NibbleError
from core.export.shared.destination import ExportError
from core.export.shared.names import base_name, safe_name
from core.recipe import Recipe
from core.runs.chat_models import ChatModel, chat_models_of, find_chat_model
from core.runs.manifest import MANIFEST
from core.runs.store import Run
from core.runs.tail import Tail
from core.workspace import Workspace, read_json

# What architectures call how many experts they have.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class ExportSource:
    """A run's adapter with all that belongs to it; `adapter` is its folder, `adapter_config` what PEFT's says in it.

    `part` is '' for the run's last adapter, 'best' or 'checkpoint/<step>' for another. `tokenizer_at` is None where
    the run holds no tokenizer yet: it is saved with its first best and its last adapter.
    """

    run: Run
    recipe: Recipe
    base: FoundModel
    adapter_config: dict[str, Any]
    adapter: Path
    part: str = ""
    tokenizer_at: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """The folder with the tokenizer and chat template that it was trained with."""
        assert self.tokenizer_at is not None  # core/export/shared/tokenizer_files.py has seen to it
        return self.tokenizer_at

    @property
    def base_folder(self) -> Path:
        """Where the base's files are."""
        assert self.base.folder is not None  # `find_export_source` has seen to it
        return self.base.folder

    @property
    def name(self) -> str:
        """The run's name, as a file name; with the step, or 'best', where it is not the last adapter."""
        return export_name(self.run, self.part)

    @property
    def base_name(self) -> str:
        """What the base is called on other machines."""
        return base_name(self.base)

    @property
    def is_mixture(self) -> bool:
        """Whether the base is a mixture of experts."""
        config = {**self.base.config, **(self.base.config.get("text_config") or {})}
        return any(int(config.get(key) or 0) > 1 for key in _EXPERTS)

    @property
    def alpha(self) -> float:
        """The adapter's alpha."""
        return float(self.adapter_config["lora_alpha"])

    @property
    def adapter_bytes(self) -> int:
        """The size of the folder with the adapter."""
        return sum(file.stat().st_size for file in self.adapter.rglob("*") if file.is_file())

    @property
    def step(self) -> int:
        """After which step of its run the adapter was as it is."""
        if self.part == "best":
            return int((read_json(self.adapter / MANIFEST) or {}).get("step", 0))
        if self.part:
            return int(self.part.rpartition("/")[2])
        return int(self.run.result().get("steps", self.run.status().step))

    @property
    def eval_loss(self) -> float | None:
        """The evaluation loss at that step, in nats a token; None where it was not measured then."""
        if not self.part:
            return self.run.result().get("eval_loss")
        rows = Tail(self.run.dir / "metrics.jsonl").read()
        at_step = [row["eval_loss"] for row in rows if "eval_loss" in row and row["step"] == self.step]
        return at_step[-1] if at_step else None


def export_name(run: Run, part: str) -> str:
    """What a run's adapter is called as a file."""
    name = safe_name(run.name, safe_name(run.id))
    return f"{name}-{part.replace('checkpoint/', 'step-')}" if part else name


def parts_of(run: Run) -> list[tuple[str, str]]:
    """The adapters that a run holds, as (what it is, `part`): its last, its best, its checkpoints, the newest first."""
    return [_named(voice, run) for voice in chat_models_of(run)]


def folder_of(run: Run, part: str) -> Path:
    """Where that adapter of the run is. Raises RunError where it is not, or no longer."""
    folder = _voice(run, part).adapter
    assert folder is not None  # a run's voice has one
    return folder


def _voice(run: Run, part: str) -> ChatModel:
    return find_chat_model(Workspace(run.workspace), f"run:{run.id}{f'/{part}' if part else ''}")


def _named(voice: ChatModel, run: Run) -> tuple[str, str]:
    part = voice.key.removeprefix(f"run:{run.id}").removeprefix("/")
    return voice.label.removeprefix(f"{run.name} · ") if part else "final", part


def part_named(typed: str) -> str:
    """The `part` that is meant by 'last', 'best' or a step. Raises ExportError."""
    if typed in ("last", "best"):
        return "" if typed == "last" else typed
    if typed.isdecimal():
        return f"checkpoint/{int(typed)}"
    raise ExportError(f"--from {typed!r} is not valid; allowed: last, best, or the step of a checkpoint.")


def find_export_source(run: Run, part: str = "", say: Callable[[str], None] = lambda line: None) -> ExportSource:
    """The run's adapter and base, downloaded where it is not here. Raises RunError, ModelError, ExportError."""
    recipe = run.recipe()
    voice, folder = _voice(run, part), folder_of(run, part)
    if part and run.status().active:
        raise ExportError(
            f"Run {run.id} is still running, and its checkpoints may be deleted at any time. Stop it, or wait until "
            f"it ends."
        )
    try:
        base = find_model(recipe.model, run.base_revision())
    except ModelError as error:
        raise ExportError(f"The base model of run {run.id} is not where it was. {error}") from None
    if base.folder is None:
        try:
            base = download(base, lambda progress: say(progress.line()), lambda: False)
        except DownloadStopped:
            raise ExportError("The download of the base model was stopped.") from None
    pinned = read_pin(run.dir / FILE) if base.revision is None else None
    change = change_of(base.folder, pinned, say) if pinned is not None and base.folder is not None else None
    if change is not None:
        raise ExportError(change.sentence(f"run {run.id}, {base.label},"))
    config = read_json(folder / "adapter_config.json")
    if not isinstance(config, dict):
        raise ExportError(f"The adapter of run {run.id} is damaged: its adapter_config.json cannot be read.")
    return ExportSource(run, recipe, base, config, folder, part, voice.tokenizer or _another_tokenizer(run))


def _another_tokenizer(run: Run) -> Path | None:
    """A checkpoint's is its run's: the one beside the run's last adapter, or its best."""
    for part in ("", "best"):
        try:
            found = _voice(run, part).tokenizer
        except NibbleError:
            continue
        if found is not None:
            return found
    return None
