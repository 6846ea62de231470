"""The base model of a run: found, downloaded where it is not here, and held to the commit that the run began with."""

from __future__ import annotations

import time

from core.basemodel.before_download import refuse_misfit_online
from core.basemodel.download import DownloadStopped, Progress, download, stopped_sentence
from core.basemodel.find import FoundModel, find_model
from core.basemodel.pin import FILE, change_of, pin_of, read_pin, write_pin
from core.errors import ModelError
from core.recipe import Recipe
from core.runs.store import Run
from core.sizes import show_bytes, show_duration
from core.workspace import write_json

TOLD_SECONDS = 1.0


def have_base(run: Run, recipe: Recipe, held: bool = True) -> FoundModel:
    """The base that `recipe` names, all of it on the disk; a run that is resumed gets the weights that it had.

    Says in status.json how a download is, and in the events what it came to. Raises ModelError, also where a folder
    holds another base by now, and DownloadStopped where the person stops the run meanwhile. `held` false: for one of
    several processes, of which the first has looked.
    """
    found = find_model(recipe.model, run.base_revision())
    if found.revision is not None:
        write_json(run.dir / FILE, {"model": found.source, "revision": found.revision})
    elif held:
        _hold(run, found)
    return found if found.folder is not None else _download(run, found)


def _hold(run: Run, found: FoundModel) -> None:
    """Keep what the base's files are, of a run that begins; else refuse others. Raises ModelError."""
    assert found.folder is not None  # what has no commit is a folder
    pinned = read_pin(run.dir / FILE)
    if pinned is not None:
        change = change_of(found.folder, pinned, lambda said: run.write_status(message=said))
        if change is not None:
            raise ModelError(change.said(f"run {run.id}, {found.label},"))
        whole = {name: entry["sha256"] for name, entry in pinned.items()}
        pinned = pin_of(found.folder, pinned)
        for name, entry in pinned.items():  # touched, and the same: what was known of it still holds
            entry["sha256"] = entry["sha256"] or whole[name]
    elif run.status().resumed_from_step is not None:
        run.event(
            "model",
            f"Nibble cannot check whether {found.label} is unchanged since this run began: the run was "
            f"started by an earlier version.",
        )
    write_pin(run.dir / FILE, found.source, pinned or pin_of(found.folder))


def _download(run: Run, found: FoundModel) -> FoundModel:
    run.write_status(message="Checking the model's files.")
    refuse_misfit_online(found, run.is_to_stop)
    began, needed, told = time.monotonic(), found.download_bytes, 0.0
    last: Progress | None = None
    files = f"{show_bytes(needed)} in {len(found.files)} files, commit {str(found.revision)[:7]}"
    run.event("download", f"{found.label} is not on this machine and will be downloaded from Hugging Face: {files}.")

    def tell(progress: Progress) -> None:
        nonlocal last, told
        last = progress
        if time.monotonic() - told >= TOLD_SECONDS:
            told = time.monotonic()
            run.write_status(message=progress.line(), heartbeat=time.time())

    try:
        model = download(found, tell, run.is_to_stop)
    except DownloadStopped:
        run.event("download", stopped_sentence(last))
        raise
    seconds = time.monotonic() - began
    speed = f"{show_bytes(needed / max(seconds, 1e-3))}/s"
    run.event("download", f"Downloaded {show_bytes(needed)} in {show_duration(seconds)} ({speed}).")
    return model
