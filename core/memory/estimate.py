"""From a recipe to a plan: finds the model's config, the device or card, and the lengths of the conversations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from core.basemodel.find import find_model
from core.catalogue.facts import find_card, find_model_facts, model_facts
from core.data.batches import steps_for
from core.data.cache import PreparedCache
from core.data.locate import locate
from core.data.prepared import prepare_data
from core.errors import ModelError, NibbleError
from core.memory.budget import Budget
from core.memory.device import PlanningDevice, of_card, this_machine
from core.memory.fused_choice import fused_choice
from core.memory.plan import Plan, plan
from core.memory.problem import PlanningProblem
from core.memory.traces import tracer
from core.memory.workload import ConversationLength, Data
from core.model.load import load_tokenizer
from core.model.remote_code import admit
from core.recipe import Recipe
from core.runs.device_lock import device_for_a_run
from core.step.fused_gain import read_gain
from core.step.packing import packing_is_wanted, varlen_is_wanted
from core.system.hardware import cuda_capability, device
from core.workspace import Workspace

# Architectures that take positions from `position_ids`, so that packing works; the trainer tests it again on the loaded
# model, and pads where it does not.
PACKED = {
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt_neox", "granite", "smollm3"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "phimoe", "deepseek_v3", "glm4_moe", "ernie4_5_moe"),
}
NOT_PLANNED = ModelError("The memory of a base that is sharded over several devices cannot be planned yet.")

# (tokens, of them trained on) of each conversation that a run would train on.
Units = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Architecture:
    """What a plan needs of a model; no weights."""

    label: str
    config: dict[str, Any]
    parameters: int
    local: bool


def make_plan(recipe: Recipe, workspace: Workspace, card: str | None = None) -> Plan:
    """The plan of `recipe`, its starting adapter settled, for a named card or this machine. Raises NibbleError."""
    architecture = architecture_of(recipe.model)
    units, why_not = _units(recipe, workspace, architecture)
    return _plan(recipe, workspace, target_for(card, workspace), architecture, units, why_not)


def plan_for(
    recipe: Recipe, workspace: Workspace, architecture: Architecture, units: Units | None, why_not: str
) -> dict[str, Any]:
    """The plan for this machine as JSON, for data with the lengths `units`; where these are None, `why_not` says why.

    `steps` is how many optimizer steps the run has, where that is known.
    """
    found = _plan(recipe, workspace, target_for(None, workspace), architecture, units, why_not).as_json()
    rules = recipe.train
    steps = rules.max_steps or (steps_for(len(units), rules.effective_batch, rules.epochs or 1) if units else None)
    return {**found, "steps": steps}


def _plan(
    recipe: Recipe,
    workspace: Workspace,
    target: PlanningDevice,
    architecture: Architecture,
    units: Units | None,
    why_not: str,
) -> Plan:
    if recipe.train.sharded:
        raise NOT_PLANNED
    packed = packing_is_wanted(recipe.train) and architecture.config.get("model_type") in PACKED
    varlen = packed and varlen_is_wanted(recipe.train, target.kind, getattr(torch, target.dtype))
    assumed: tuple[str, ...] = ()
    if units:
        conversations = [ConversationLength(*unit) for unit in units]
    else:
        longest = recipe.data.max_length
        conversations = [ConversationLength(longest, longest - 1)] * recipe.train.effective_batch
        assumed = (f"data.max_length: {why_not}; each conversation is assumed to have {longest:,} tokens",)
    return plan(planning_problem(recipe, target, architecture, conversations, packed, assumed, workspace, varlen))


def planning_problem(
    recipe: Recipe,
    target: PlanningDevice,
    architecture: Architecture,
    conversations: Sequence[ConversationLength],
    packed: bool,
    assumed: tuple[str, ...] = (),
    workspace: Workspace | None = None,
    varlen: bool = False,
) -> PlanningProblem:
    """What to plan, once the lengths are known. With a `workspace`, free memory is what a run there would find.

    `varlen`: packed rows are computed without a mask (core/model/varlen.py).
    """
    rules = recipe.train
    steps = rules.max_steps or steps_for(len(conversations), rules.effective_batch, rules.epochs or 1)
    data = Data(conversations, 1 if assumed else steps, rules.effective_batch, rules.seed, rules.devices)
    target = target.for_model(str(architecture.config.get("model_type", "")))
    fused, _ = fused_choice(recipe, target)
    trace_of = tracer(architecture.config, target.kind, target.dtype, target.pages, varlen, fused)
    budget = read_plan_budget(recipe, target, workspace)
    active = active_share(architecture.config, architecture.parameters)
    size = architecture.parameters
    return PlanningProblem(recipe, target, budget, size, packed, data, trace_of, assumed, active, varlen)


def target_for(card: str | None, workspace: Workspace | None = None) -> PlanningDevice:
    """The card of that name, or what this machine has; with a `workspace`, with what was measured there."""
    if card is not None:
        return of_card(find_card(card))
    chosen = device()
    if chosen.kind != "cuda":
        return this_machine(chosen, None)
    gain = None if workspace is None else read_gain(workspace, chosen.name)
    return replace(this_machine(chosen, cuda_capability(chosen.index)), fused_gain=gain)


def architecture_of(model: str) -> Architecture:
    """A model's config: from its folder, or from what is known of it. Raises ModelError."""
    known = model_facts()
    if model in known or any(facts.hub == model for facts in known.values()):
        facts = find_model_facts(model)
        return Architecture(facts.title, facts.config, facts.parameters, False)
    found = find_model(model)
    admit(found)
    if not found.parameters:
        raise ModelError(f"{found.label} is not downloaded, and its size is unknown. Download it first.")
    return Architecture(found.label, found.config, found.parameters, found.folder is not None)


def read_plan_budget(recipe: Recipe, target: PlanningDevice, workspace: Workspace | None = None) -> Budget:
    """What the recipe's budget means on `target`; if it has none, what is free here, or the whole card."""
    if recipe.budget is not None or not target.is_this_machine:
        return Budget.of(recipe.budget, target.total_bytes, target.total_bytes, "all of the card")
    here = device() if workspace is None else device_for_a_run(workspace)
    return Budget.of(None, here.total_bytes, here.free_bytes)


def _units(recipe: Recipe, workspace: Workspace, architecture: Architecture) -> tuple[Units | None, str]:
    """The data's lengths in this model's tokens; else None, and why."""
    if not architecture.local:
        return None, "the lengths of the data, because the model and its tokenizer are not downloaded"
    try:
        file, tokenizer = locate(recipe.data, workspace), load_tokenizer(find_model(recipe.model))
        rendered = prepare_data(file, recipe.data, tokenizer, PreparedCache.of(workspace.path)).rendered.usable
    except NibbleError as error:
        return None, f"the lengths of the data ({error})"
    units = [(len(each.ids), sum(each.trained)) for each in rendered]
    return units or None, "the lengths of the data, because none of its rows can be used"


def active_share(config: dict[str, Any], parameters: int) -> float:
    """The share of `parameters` that computes for one token: 1 where there are no experts, or the config does not say.

    An expert is three matrices, (inner, hidden) or its transpose, as in all mixtures since Mixtral.
    """

    def first(*names: str) -> int:
        return next((value for name in names if isinstance(value := config.get(name), int)), 0)

    experts = first("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    chosen = first("num_experts_per_tok", "moe_k", "num_experts_per_token")
    if not experts or not chosen or chosen >= experts:
        return 1.0
    layers = first("num_hidden_layers") - first("first_k_dense_replace")
    inner, hidden = first("moe_intermediate_size", "intermediate_size"), first("hidden_size")
    idle = layers * (experts - chosen) * 3 * inner * hidden
    return 1 - idle / parameters if 0 < idle < parameters else 1.0
