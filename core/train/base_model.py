"""The base model of a run: found, downloaded if need be, and held to what it was when the run began."""

import time

from core.basemodel.download import DownloadStopped, Progress, download, refuse_misfit_online, stopped_sentence
from core.basemodel.find import FoundModel, find_model
from core.basemodel.pin import FILE, change_of, pin_of, read_pin, write_pin
from core.errors import ModelError
from core.recipe import Recipe
from core.runs.store import Run
from core.sizes import show_bytes, show_duration
from core.workspace import write_json

REPORT_SECONDS = 1.0


def have_base(run: Run, recipe: Recipe, held: bool = True) -> FoundModel:
    """The base that `recipe` names, complete on the disk; a resumed run gets the weights that it had.

    status.json shows how far a download is, the events what came of it. Raises ModelError, also where a folder now
    holds another base, and DownloadStopped where the run is stopped meanwhile. `held` is false in all processes but
    the first, which has compared the files.
    """
    found = find_model(recipe.model, run.base_revision())
    if found.revision is not None:
        write_json(run.dir / FILE, {"model": found.source, "revision": found.revision})
    elif held:
        _hold(run, found)
    return found if found.folder is not None else _download(run, found)


def _hold(run: Run, found: FoundModel) -> None:
    """Record the base's files when a run begins; refuse other files later. Raises ModelError."""
    assert found.folder is not None  # what has no commit is a folder
    pinned = read_pin(run.dir / FILE)
    if pinned is not None:
        change = change_of(found.folder, pinned, lambda message: run.write_status(message=message))
        if change is not None:
            raise ModelError(change.sentence(f"run {run.id}, {found.label},"))
        whole = {name: entry["sha256"] for name, entry in pinned.items()}
        pinned = pin_of(found.folder, pinned)
        for name, entry in pinned.items():  # touched, but unchanged: its hash still holds
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
    began, needed, reported = time.monotonic(), found.download_bytes, 0.0
    last: Progress | None = None
    files = f"{show_bytes(needed)} in {len(found.files)} files, commit {str(found.revision)[:7]}"
    run.event("download", f"{found.label} is not on this machine and will be downloaded from Hugging Face: {files}.")

    def report(progress: Progress) -> None:
        nonlocal last, reported
        last = progress
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            run.write_status(message=progress.line(), heartbeat=time.time())

    try:
        model = download(found, report, run.is_to_stop)
    except DownloadStopped:
        run.event("download", stopped_sentence(last))
        raise
    seconds = time.monotonic() - began
    speed = show_bytes(needed / max(seconds, 1e-3))
    run.event("download", f"Downloaded {show_bytes(needed)} in {show_duration(seconds)} ({speed}/s).")
    return model
