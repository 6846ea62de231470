"""A run as HTML: what it is doing, what came out, what it says, what happened."""

import time
from pathlib import Path
from typing import Any

from app.run_view import predicted_html
from app.run_view.series import Curves
from app.ui.html import clock, duration, empty, figure, number, progress_bar, state_badge, text
from core.errors import NibbleError
from core.runs.heartbeat import Heartbeat, Stopping, hanging, read_heartbeat, stopping
from core.runs.queue import order
from core.runs.store import ENDED, OPEN, Run, Status
from core.runs.supervisor import Supervisor
from core.sizes import show_size
from core.workspace import Workspace

OPEN_WARNINGS = 3


def budget_bytes(run: Run) -> int | None:
    """The memory that `run` may use, as its plan says; None before there is one."""
    planned = run.plan().get("budget_bytes") or run.result().get("budget_bytes")
    return int(planned) if planned else None


def predicted_bytes(run: Run) -> int | None:
    """The peak of the whole process that `run`'s plan predicts; None before there is a plan, or without a trace."""
    predicted = (run.plan().get("peak_bytes") or {}).get("process")
    return int(predicted) if predicted else None


def title(run: Run) -> str:
    """Name and what is trained on what, escaped."""
    try:
        recipe = run.recipe()
    except NibbleError:
        return f"<h3>{text(run.name)}</h3>"
    what = f"{Path(recipe.model).name} · {Path(recipe.data.path).name} · rank {recipe.lora.rank}"
    return f"<h3>{text(run.name)}</h3><small>{text(what)}</small>"


def head(run: Run, status: Status, curves: Curves) -> str:
    """State, progress and figures while it goes on; what changed once it has ended."""
    if status.state in OPEN:
        return _progress(run, status, curves)
    if status.state in ("failed", "interrupted"):
        return _failure(run, status, curves)
    return _outcome(run, status, curves)


def _card(run: Run, state: str, body: str) -> str:
    return (
        f'<div class="nb-card nb-run-{text(state)}"><header>{state_badge(state)}'
        f"<div>{title(run)}</div></header>{body}</div>"
    )


def _warnings(curves: Curves) -> str:
    """What went wrong and was dealt with, the newest first: it must not wait in a folded list."""
    found = [row for row in curves.events if row.get("kind") == "warning"]
    if not found:
        return ""
    lines = "".join(
        f"<li><time>{clock(float(row.get('time', 0)))}</time><span>{text(row.get('message', ''))}</span></li>"
        for row in reversed(found[-OPEN_WARNINGS:])
    )
    more = len(found) - OPEN_WARNINGS
    rest = f"<p>{number(more)} more under Events.</p>" if more > 0 else ""
    return f'<div class="nb-box nb-warnings" role="status"><ul>{lines}</ul>{rest}</div>'


def _progress(run: Run, status: Status, curves: Curves) -> str:
    if status.state == "queued":
        return _card(run, status.state, f'<p class="nb-say">{text(_waits(run))}</p>')
    pulse = read_heartbeat(run)
    if pulse is not None and pulse.pid != status.pid:  # an earlier worker's
        pulse = None
    elapsed = figure("elapsed", duration(_elapsed(status, pulse)))
    asked = stopping(run)
    why = hanging(run)
    trouble = (_stopping(asked, pulse) if asked is not None else "") + (_box("error", why) if why else "")
    shown_state = "stopping" if asked is not None else status.state
    message = f'<p class="nb-say">{text(status.message)}</p>' if status.message and not trouble else ""
    if not status.total or status.state == "preparing":
        body = f'{progress_bar(0, moving=True)}<div class="nb-figures">{elapsed}</div>{message}{trouble}'
        return _card(run, shown_state, body)
    figures = "".join([_figures(status, curves, elapsed), _card_state(pulse)])
    bar = progress_bar(status.step / status.total)
    body = f'{bar}<div class="nb-figures">{figures}</div>{message}{trouble}{_warnings(curves)}'
    return _card(run, shown_state, body)


def _figures(status: Status, curves: Curves, elapsed: str) -> str:
    pace = curves.seconds_per_step()
    left = duration(pace * (status.total - status.step)) if pace else "…"
    last = curves.metrics.last
    rate = last.get("tokens_per_second")
    return "".join(
        [
            figure("step", f"{number(status.step)} of {number(status.total)}"),
            elapsed,
            figure("remaining, about" if pace else "remaining", left),
            figure("speed", f"{number(rate)} tokens/s" if rate else "…"),
            figure("loss", f"{last['loss']:.3f}" if "loss" in last else "…", "nats per token"),
            _evaluated(last),
        ]
    )


def _elapsed(status: Status, pulse: Heartbeat | None) -> float:
    """Since the worker began: by its own clock, which nobody sets, as soon as it says so."""
    if pulse is not None:
        return pulse.seconds + pulse.silent(time.monotonic())
    return max(0.0, time.time() - status.started) if status.started else 0.0


def _card_state(pulse: Heartbeat | None) -> str:
    """The GPU's temperature and power, as far as it tells them."""
    card = pulse.card if pulse is not None else {}
    temperature, power = card.get("temperature_celsius"), card.get("power_watts")
    watts = f"{power:.0f} W" if power is not None else ""
    if temperature is None:
        return figure("GPU", watts) if watts else ""
    return figure("GPU", f"{temperature:.0f} °C", watts)


def _stopping(asked: Stopping, pulse: Heartbeat | None) -> str:
    """That it stops, since when, what becomes of it if it does not, and what is lost if it is ended now."""
    since = f"Stopping since {clock(asked.since)}: it finishes the current step and saves its progress."
    then = "It is taking too long and will be killed."
    if asked.left_seconds > 0:
        then = f"If it has not stopped in {duration(asked.left_seconds)}, it will be killed."
    saved = pulse.saved_step if pulse is not None else None
    lost = (
        "nothing has been saved yet, so everything is lost"
        if saved is None
        else f"everything after step {number(saved)} is lost"
    )
    return _box("note", f"{since} {then} If you force it to stop now, {lost}.")


def _box(kind: str, message: str) -> str:
    """As those of app/ui/html.py, but not spoken: its words change every second."""
    return f'<div class="nb-box nb-{kind} nb-beneath">{text(message)}</div>'


def _waits(run: Run) -> str:
    """What a run in the queue waits for."""
    workspace = Workspace(run.workspace)
    ahead = [other.id for other in order(workspace)]
    place = ahead.index(run.id) if run.id in ahead else 0
    if place:
        return f"{number(place)} {'run starts' if place == 1 else 'runs start'} before it."
    return Supervisor(workspace).waits_for()


def _evaluated(last: dict[str, float]) -> str:
    """The newest evaluation; no place is kept for it where nothing is held out."""
    if "eval_loss" not in last:
        return ""
    wavering = f"perplexity {_perplexity(last['eval_perplexity'])}" if "eval_perplexity" in last else "nats per token"
    return figure("evaluation loss", f"{last['eval_loss']:.3f}", wavering)


def _perplexity(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else number(value)


def _outcome(run: Run, status: Status, curves: Curves) -> str:
    result = run.result()
    shown = status.message and status.state != "finished"  # a finished run's figures say it all
    message = f'<p class="nb-say">{text(status.message)}</p>' if shown else ""
    pair = predicted_html.pair(result)
    memory = f'<p class="nb-say">Peak memory: {predicted_html.in_words(pair)}.</p>' if pair else ""
    figures = f'<div class="nb-figures">{"".join(_result_figures(result, status))}</div>'
    early = f'<p class="nb-say">{text(result["ended_early"])}</p>' if result.get("ended_early") else ""
    return _card(run, status.state, f"{figures}{memory}{early}{message}{_warnings(curves)}")


def _result_figures(result: dict[str, Any], status: Status) -> list[str]:
    figures = []
    before, after = result.get("eval_loss_before"), result.get("eval_loss")
    if before is not None and after is not None:
        change = f"{(after - before) / before * 100:+.0f} %, lower is better" if before else "nats per token"
        figures.append(figure("evaluation loss", f"{before:.3f} → {after:.3f}", change))
        figures += _perplexity_and_best(result, after)
    elif result.get("final_loss") is not None:
        figures.append(figure("training loss", f"{result['final_loss']:.3f}", "nats per token"))
    steps = result.get("steps", status.step)
    figures.append(figure("steps", f"{number(steps)} of {number(status.total)}" if status.total else number(steps)))
    if result.get("seconds"):
        figures.append(figure("time", duration(result["seconds"])))
    if result.get("tokens_per_second"):
        figures.append(figure("speed", f"{number(result['tokens_per_second'])} tokens/s"))
    peak = (result.get("peak_bytes") or {}).get("process")
    if peak:
        budget = result.get("budget_bytes")
        figures.append(figure("memory", show_size(peak), f"of {show_size(budget)} budget" if budget else "at its peak"))
    return figures


def _perplexity_and_best(result: dict[str, Any], after: float) -> list[str]:
    figures = []
    before, now = result.get("eval_perplexity_before"), result.get("eval_perplexity")
    if before is not None and now is not None:
        figures.append(figure("perplexity", f"{_perplexity(before)} → {_perplexity(now)}", "on the validation split"))
    best = result.get("best")
    if best and best["eval_loss"] < after:
        figures.append(figure("best adapter", f"{best['eval_loss']:.3f}", f"at step {number(best['step'])}, also kept"))
    return figures


def _failure(run: Run, status: Status, curves: Curves) -> str:
    log = run.log_tail(30)
    tail = (
        f"<details open><summary>Last log lines</summary><pre class='nb-log'>{text(log)}</pre></details>" if log else ""
    )
    step = ""
    if status.total:
        step = f'<p class="nb-say">It completed {number(status.step)} of {number(status.total)} steps.</p>'
    why = text(status.message or "It ended without giving a reason.")
    message = f'<p class="nb-why" role="alert">{why}</p>{step}{_warnings(curves)}{tail}'
    return _card(run, status.state, message)


def no_chart(name: str, state: str) -> str:
    """The place where a chart will be."""
    if state in ENDED:
        return empty(name, "No measurements: the run ended before its first step.")
    return empty(name, "Appears after the first step.")


def events(rows: list[dict[str, Any]]) -> str:
    """What happened, the newest on top."""
    if not rows:
        return '<p class="nb-muted">Nothing yet.</p>'
    lines = [
        f"<li class='nb-kind-{text(row.get('kind', ''))}'><time>{clock(float(row.get('time', 0)))}</time>"
        f"<span>{text(row.get('message', ''))}</span></li>"
        for row in reversed(rows)
    ]
    return f'<ul class="nb-events">{"".join(lines)}</ul>'
