"""How fast this machine trains a model, from the newest run of it that finished."""

from core.data.check.training import Pace
from core.errors import NibbleError
from core.runs.find import list_runs
from core.workspace import Workspace


def pace_of(workspace: Workspace, model: str) -> Pace:
    """The pace of the newest finished run of `model`, as the recipe names it."""
    for run in list_runs(workspace):
        try:
            if run.status().state != "finished" or run.recipe().model != model:
                continue
        except NibbleError:
            continue
        speed = run.result().get("tokens_per_second")
        if isinstance(speed, (int, float)) and speed > 0:
            return Pace(float(speed), f"at the {speed:,.0f} tokens/s of the run {run.name!r}")
    return Pace(None, "no run of this model has finished yet, so its speed is unknown")
