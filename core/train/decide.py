"""How a run trains: the strategy that the plan chose, or a frugal one where its step cannot be traced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.basemodel.find import FoundModel
from core.data.rendering.render import Rendered
from core.errors import BudgetError, ModelError
from core.memory.budget import Budget
from core.memory.device import PlanningDevice
from core.memory.estimate import NOT_PLANNED, Architecture, planning_problem, target_for
from core.memory.plan import Plan, plan
from core.memory.problem import with_settings
from core.memory.strategy import Strategy, most_frugal, share_of, strategies_of
from core.memory.workload import ConversationLength
from core.recipe import Recipe
from core.sizes import show_size
from core.step.embedding_offload import keep_embeddings_in_ram
from core.step.optimizer import optimizer_for
from core.system.allocator import return_memory
from core.text.library_errors import telling_line
from core.workspace import Workspace


@dataclass(frozen=True)
class Choices:
    """What was decided: the strategy, whether conversations share rows, and the plan behind it (None: no trace).

    `tokens_at_once` are those of the run's largest micro-batch. `has_ram_for`: whether ordinary memory has room for
    what another strategy would move there.
    """

    strategy: Strategy
    packed: bool
    plan: Plan | None
    reasons: list[dict[str, Any]]
    tokens_at_once: int
    has_ram_for: Callable[[Strategy], bool] = field(default=lambda strategy: True, compare=False)

    def as_json(self, recipe: Recipe) -> dict[str, Any]:
        """As plan.json holds it."""
        if self.plan is not None:
            return self.plan.as_json()
        chosen = self.strategy.as_json(share_of(recipe))
        return {"fits": None, "chosen": chosen, "reasons": self.reasons, "peak_bytes": None}

    def settle(self, recipe: Recipe, model: Any) -> Recipe:
        """Apply the choices to the process and to `model`. Returns the recipe with the chosen optimizer."""
        if self.strategy.heap == "returned":
            return_memory()
        if self.strategy.embeddings_in_ram:
            keep_embeddings_in_ram(model)
        return with_settings(recipe, "train", optimizer=self.strategy.optimizer)


def choose(
    recipe: Recipe,
    found: FoundModel,
    rows: Sequence[Rendered],
    budget: Budget,
    packed: bool,
    varlen: bool = False,
    workspace: Workspace | None = None,
) -> Choices:
    """The plan for `rows` on this machine, with what was measured in `workspace`.

    `varlen`: packed rows are computed without a mask. Raises BudgetError where nothing fits, naming what would.
    """
    architecture = Architecture(found.label, found.config, found.parameters, True)
    lengths = [ConversationLength(len(row.ids), sum(row.trained[1:])) for row in rows]
    target = target_for(None, workspace)
    try:
        if recipe.train.sharded:
            raise NOT_PLANNED
        problem = planning_problem(recipe, target, architecture, lengths, packed, varlen=varlen)
        planned = plan(replace(problem, budget=budget))
    except ModelError as error:
        return _without_trace(recipe, target, packed, error, max(each.length for each in lengths))
    if planned.strategy is None:
        raise BudgetError(_does_not_fit(planned))
    largest = problem.work(planned.strategy.micro_batch).largest
    tokens = largest.packs * largest.width
    return Choices(planned.strategy, packed, planned, planned.reasons, tokens, problem.has_ram_for)


def _without_trace(recipe: Recipe, target: PlanningDevice, packed: bool, error: Exception, longest: int) -> Choices:
    rules = recipe.train
    frugal = most_frugal(list(strategies_of(recipe, target, [rules.micro_batch or 1])))
    strategy = replace(frugal, heap="kept", optimizer=optimizer_for(rules.optimizer).name)
    because = f"this model's step cannot be traced ({telling_line(error)}), so frugal settings are used"
    reasons = [{"setting": "micro_batch", "value": strategy.micro_batch, "because": because}]
    return Choices(strategy, packed, None, reasons, strategy.micro_batch * longest)


def _does_not_fit(planned: Plan) -> str:
    strategies = ", or ".join(f"{each['change']} ({show_size(each['peak_bytes'])})" for each in planned.suggestions)
    return (
        f"budget: {planned.read_as} is too small: {planned.reasons[0]['because']}. What would help: {strategies}."
        f" Allowed: {show_size(planned.smallest_budget_bytes)} or more."
    )
