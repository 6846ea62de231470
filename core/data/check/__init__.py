"""The report on a dataset before anything is trained: `check(...)` at once, `Check` step by step."""

from pathlib import Path
from typing import Any

from core.data.cache import PreparedCache
from core.data.check.job import Check
from core.data.check.reading import Progress
from core.data.check.report import Figures, Report
from core.data.check.training import Training
from core.settings import DataSettings

__all__ = ["Check", "Figures", "Report", "Training", "check"]


def check(
    path: Path,
    settings: DataSettings,
    tokenizer: Any,
    training: Training | None = None,
    *,
    progress: Progress | None = None,
    exact: bool = True,
    cache: PreparedCache | None = None,
) -> Report:
    """Check the dataset at `path` (a file, or a folder of files) for the model of `tokenizer`.

    `progress` gets the stage ('reading', 'tokens') and the share of it that is done. With `exact` false, a file above
    100 MB is judged by a seeded sample. What was rendered is kept in `cache`, for a run to use. Raises DataError,
    ModelError.
    """
    job = Check(path, settings, tokenizer, training or Training(), progress=progress, cache=cache)
    for report in job.reports():
        if report.figures is not None and not exact:
            break
    return report
