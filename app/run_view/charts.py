"""The two charts of a run: its loss over the steps, and its memory over time."""

from app.run_view.series import Curves
from app.ui.charts import Axes, Ink, Line, figure, padded, round_up, round_up_time
from core.sizes import GIB, MIB

# A budget so many times above the use is put at the top of the chart; room is left above every budget's line.
FAR_BUDGET, HEADROOM = 3.0, 1.08


def loss_chart(curves: Curves, ink: Ink | None = None, total: int | None = None) -> str:
    """Training loss, raw and smoothed, and evaluations as points; '' before the first. `total`: planned steps."""
    loss, smooth, evaluation = curves.metrics.loss, curves.metrics.smooth, curves.metrics.evaluation
    found = [each for each in (loss, smooth, evaluation) if each.points]
    if not found:
        return ""
    lines = [
        Line.of("train", "raw", loss),
        Line.of("train, smoothed", "smooth", smooth),
        Line.of("evaluation", "eval", evaluation),
    ]
    last = max(1.0, max(each.all()[-1][0] for each in found))
    end = last if total is None else min(round_up(last), max(float(total), last))
    heights = padded(min(each.low for each in found), max(each.high for each in found))
    return figure("Loss", lines, Axes("step", "loss (nats per token)", (0.0, end), heights), ink)


def memory_chart(
    curves: Curves,
    kind: str,
    budget_bytes: int | None,
    predicted_bytes: int | None = None,
    ink: Ink | None = None,
    goes_on: bool = False,
) -> str:
    """Memory over time, with the predicted peak and the budget as lines.

    `kind` is the device's; a CPU has resident memory only.
    """
    names = {
        "allocated_bytes": ("tensors", "allocated"),
        "reserved_bytes": ("reserved by torch", "reserved"),
        "process_bytes": ("resident memory" if kind == "cpu" else "used by the process", "used"),
    }
    found = {column: curves.memory[column] for column in names if column in curves.memory}
    top = max([*(series.high for series in found.values()), predicted_bytes or 0])
    if not found or not top:  # a run has taken nothing of a GPU before its libraries are there
        return ""
    unit, name = (GIB, "GiB") if top >= GIB / 2 else (MIB, "MiB")
    top = round_up(top / unit) * unit
    lines = [Line.of(*names[column], series) for column, series in found.items()]
    last = max(1.0, max(series.all()[-1][0] for series in found.values()))
    end = round_up_time(last) if goes_on else last
    ceiling = top * 1.6
    far = False
    if predicted_bytes:
        level = float(predicted_bytes)
        lines.append(Line(f"predicted {level / unit:.3g} {name}", "predicted", (), ((0.0, level), (end, level))))
    if budget_bytes:
        # A budget far above the use would press the curve flat: then its line is put at the top, and says so.
        far = budget_bytes > FAR_BUDGET * top
        shown = ceiling / HEADROOM if far else float(budget_bytes)
        ceiling = shown * HEADROOM
        lines.append(Line(f"budget {budget_bytes / unit:.3g} {name}", "budget", (), ((0.0, shown), (end, shown))))
    axes = Axes("time since the start", f"memory ({name})", (0.0, end), (0.0, ceiling), x_kind="time", y_unit=unit)
    return figure("Memory", lines, axes, ink, "the budget is above the chart" if far else "")
