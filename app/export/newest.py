"""Which export the page shows: the last one that was started, whoever started it."""

from __future__ import annotations

from app.context import Context
from core.export import jobs


def newest(context: Context) -> jobs.ExportJob | None:
    """The export that is shown; None before there is one."""
    return next(iter(jobs.jobs(context.workspace)), None)
