"""The base model of a run: found, downloaded where it is not here, and held to the commit that the run began with."""

from __future__ import annotations

import time

from core.basemodel.before_download import refuse_misfit_online
from core.download import DownloadStopped, Progress, download, stopped_sentence
from core.models import FoundModel, find_model
from core.recipe import Recipe
from core.runs.store import Run
from core.sizes import show_bytes, show_duration
from core.workspace import write_json

TOLD_SECONDS = 1.0


def have_base(run: Run, recipe: Recipe) -> FoundModel:
    """The base that `recipe` names, all of it on the disk; a run that is resumed gets the weights that it had.

    Says in status.json how a download is, and in the events what it came to. Raises ModelError, and DownloadStopped
    where the person stops the run meanwhile.
    """
    found = find_model(recipe.model, run.base_revision())
    if found.revision is not None:
        write_json(run.dir / "base.json", {"model": found.source, "revision": found.revision})
    return found if found.folder is not None else _download(run, found)


def _download(run: Run, found: FoundModel) -> FoundModel:
    run.write_status(message="Looking at what the model's files hold.")
    refuse_misfit_online(found, run.is_to_stop)
    began, needed, told = time.monotonic(), found.download_bytes, 0.0
    last: Progress | None = None
    files = f"{show_bytes(needed)} in {len(found.files)} files, commit {str(found.revision)[:7]}"
    run.event("download", f"{found.label} is not on this machine and is downloaded from Hugging Face: {files}.")

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
