"""What the server remembers for the Train tab: the plan, the download, and the dataset that the Data tab shows too."""

from dataclasses import dataclass

from app.context import Context
from app.data.session import DataSession
from app.train.download import DownloadSession
from app.train.plan_session import PlanSession
from core.runs.store import Run


@dataclass(frozen=True)
class TrainSession:
    """One for all browsers, as there is one form."""

    data: DataSession
    plans: PlanSession
    downloads: DownloadSession


def shown_run(context: Context) -> Run | None:
    """The run that the Train tab shows: the one at work, else the one that waits, else the one that ended last."""
    runs = context.supervisor
    return runs.current() or next(iter(runs.queued()), None) or runs.ended_last()
