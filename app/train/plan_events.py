"""What the form and the plan do to one another: a change is planned, and what the plan offers is set on the form."""

import math
import re
from typing import Any

import gradio as gr

from app.context import Context
from app.server.event_validation import pressed
from app.train.plan_session import PlanSession
from app.ui.form import Form, explain
from app.ui.updates import Given, Seen, Updates, is_new
from core.errors import NibbleError, RecipeError
from core.recipe import make_recipe, with_overrides
from core.sizes import GIB, parse_size
from core.system.hardware import device

# No more of YAML than a plan ever offers: 'lora.rank=16', 'budget=7.5GiB', 'lora.targets=q_v'.
_CHANGE = re.compile(r"[a-z_.]{1,60}=[\w.%-]{1,60}", re.ASCII)


class PlanEvents:
    """What happens when a setting changes, and on a press in the plan. `message` is where a refusal is shown."""

    def __init__(self, form: Form, message: gr.HTML, context: Context, plans: PlanSession) -> None:
        self.form, self.message, self.context, self.plans = form, message, context, plans

    def look(self, given: Given) -> str:
        """Have what stands on the form planned. Returns at once, with the last plan greyed; `tick` brings the next."""
        try:
            self.plans.look(self.context.recipe(self.form.values(given)))
        except NibbleError as error:
            self.plans.refuse(str(error))
        return self.plans.html()

    def use(self, event: gr.EventData) -> Updates:
        """Set on the form what the plan offers to change, and keep it."""
        try:
            change = pressed(event, "change")
            if not _CHANGE.fullmatch(change):
                raise RecipeError("This is not a change of a setting. Reload the page.")
            key, value = setting(change)
            if key not in self.form.fields:
                raise RecipeError(f"{key}: there is no such setting.")
            make_recipe({key: value})
        except NibbleError as error:
            return {self.message: explain(error)}
        self.form.keep(self.context.form_file, {key: value})
        return {**self.form.updates({key: value}), self.message: ""}


def setting(change: str) -> tuple[str, Any]:
    """Key and value of a change such as 'lora.rank=16'. A budget is rounded up to what the slider can show.

    Raises RecipeError where it is none.
    """
    key, _, text = change.partition("=")
    if key == "budget":
        size = parse_size(text, device().total_bytes)
        return key, f"{math.ceil(size / GIB * 100 - 1e-6) / 100:g}GiB"
    value: Any = with_overrides({}, [change])
    for part in key.split("."):
        value = value[part]
    return key, value


def tick(shown: gr.HTML, plans: PlanSession, seen: Seen) -> Updates:
    """The plan, where this browser has not seen it as it is. A look draws by itself: after one it is due."""
    html = plans.html()
    return {shown: html} if is_new(seen, "plan", (plans.turn, html)) else {}
