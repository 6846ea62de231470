"""What the server knows about runs while people look at them: read once, drawn once, shared by every browser."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from app.run_view import html as run_view_html
from app.run_view import samples_html
from app.run_view.charts import loss_chart, memory_chart
from app.run_view.series import PATIENCE_SECONDS, Curves
from app.ui.charts import Ink
from app.ui.html import busy
from core.runs.store import OPEN, Run, Status

KEPT = 12


@dataclass
class Drawn:
    """One run's curves and the HTML last made of them, with the version that each part was made from."""

    curves: Curves
    parts: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, object] = field(default_factory=dict)
    inks: dict[str, Ink] = field(default_factory=lambda: {"loss": Ink(), "memory": Ink()})


class RunDrawings:
    """Draws runs. A part is drawn again only when its file grew."""

    def __init__(self, device_kind: str) -> None:
        self.device_kind = device_kind
        self._drawn: OrderedDict[str, Drawn] = OrderedDict()
        self._lock = threading.Lock()

    def parts(self, run: Run) -> dict[str, str]:
        """The HTML of `run` by part: head, loss, memory, says, events. Two equal texts mean: nothing new."""
        with self._lock:
            return self._draw(run, self._known(run))

    def compare(self, runs: list[Run], drawn: str, draw: Callable[[list[Curves]], str]) -> tuple[str, str]:
        """`draw` of the curves of `runs`, brought up to date, and a mark of what it was drawn from.

        Empty where that is `drawn` already. The curves are others' too, so `draw` must not keep them.
        """
        with self._lock:
            known = [self._known(run).curves for run in runs]
            for curves in known:
                curves.update(PATIENCE_SECONDS / len(known))
            mark = " ".join(f"{run.id} {curves.versions['metrics']}" for run, curves in zip(runs, known, strict=True))
            return ("", mark) if mark == drawn else (draw(known), mark)

    def _known(self, run: Run) -> Drawn:
        drawn = self._drawn.setdefault(run.id, Drawn(Curves(run)))
        self._drawn.move_to_end(run.id)
        while len(self._drawn) > KEPT:
            self._drawn.popitem(last=False)
        return drawn

    def _draw(self, run: Run, drawn: Drawn) -> dict[str, str]:
        status, curves = run.status(), drawn.curves
        curves.update()
        levels = run_view_html.budget_bytes(run), run_view_html.predicted_bytes(run)
        drawn.parts["head"] = run_view_html.head(run, status, curves)
        if curves.waiting_bytes:
            drawn.parts["head"] += busy(f"Loading metrics: {curves.share_read:.0%}.")
        wanted: dict[str, object] = {
            "loss": (curves.versions["metrics"], status.state, status.total),
            "memory": (curves.versions["memory"], status.state, levels),
            "says": (curves.versions["samples"], status.state, _past_the_first_answers(curves)),
            "events": curves.versions["events"],
        }
        for part, version in wanted.items():
            if drawn.made_from.get(part) == version and part in drawn.parts:
                continue
            drawn.made_from[part] = version
            drawn.parts[part] = self._part(part, status, drawn, levels)
        return dict(drawn.parts)

    def _part(self, part: str, status: Status, drawn: Drawn, levels: tuple[int | None, int | None]) -> str:
        curves, goes_on = drawn.curves, status.state in OPEN
        if part == "loss":
            total = status.total if goes_on else None
            return loss_chart(curves, drawn.inks[part], total) or run_view_html.no_chart("Loss", status.state)
        if part == "memory":
            drawing = memory_chart(curves, self.device_kind, *levels, drawn.inks[part], goes_on)
            return drawing or run_view_html.no_chart("Memory", status.state)
        if part == "says":
            return samples_html.says(curves.samples, status.state, _past_the_first_answers(curves))
        return run_view_html.events(list(curves.events))


def _past_the_first_answers(curves: Curves) -> bool:
    """Whether the base would have answered by now: it is asked before the first step."""
    return curves.metrics.last.get("step", 0) >= 1
