"""Why a plan chose what it chose, with what each choice saved or cost."""

from dataclasses import replace
from functools import partial
from typing import Any

from core.memory.fused_choice import fused_choice
from core.memory.problem import Peak, PlanningProblem
from core.memory.strategy import Strategy, share_of
from core.sizes import show_size
from core.step.optimizer import OPTIMIZERS
from core.step.packing import packing_is_wanted

Reason = dict[str, Any]


def reasons_for(problem: PlanningProblem, strategy: Strategy, peak: Peak) -> list[Reason]:
    """A reason for each choice, in the order in which a person reads them."""
    saving = partial(_saving, problem, strategy, peak)
    found = [*_computing(problem), *_batches(problem, strategy), _checkpointing(problem, strategy, peak)]
    found += [_packed(problem), *_optimizer(problem, strategy, peak), *_paging(problem, strategy)]
    if strategy.offload:
        found.append(saving("activation_offload", True, replace(strategy, offload=False)))
    if strategy.embeddings_in_ram:
        found.append(saving("embeddings_in_ram", True, replace(strategy, embeddings_in_ram=False)))
    if strategy.streamed_layers:
        found.append(_streamed(problem, strategy, peak))
    if strategy.heap == "returned":
        found.append(saving("heap", strategy.heap, replace(strategy, heap="kept")))
    fused, because = fused_choice(problem.recipe, problem.target)
    return [*found, _reason("train.fused_lora", "on" if fused else "off", because)] if because else found


def _computing(problem: PlanningProblem) -> list[Reason]:
    """Why a GPU computes in 32 bits: nobody expects it, and it takes more of everything."""
    target = problem.target
    if target.kind == "cpu" or target.dtype != "float32":
        return []
    return [_reason("compute_dtype", target.dtype, target.because)]


def _paging(problem: PlanningProblem, strategy: Strategy) -> list[Reason]:
    if problem.target.pages or problem.target.kind != "cuda" or not OPTIMIZERS[strategy.optimizer].paged:
        return []
    why = "CUDA refuses managed memory on this card, so the optimizer's states stay in the card's own"
    return [_reason("paging", "off", why)]


def _batches(problem: PlanningProblem, strategy: Strategy) -> list[Reason]:
    rules, largest = problem.recipe.train, problem.work(strategy.micro_batch).largest
    at_once = f"the largest micro-batch is {largest.packs} x {largest.width} tokens"
    if rules.micro_batch is not None:
        why = f"you set it; {at_once}"
    elif strategy.micro_batch == max(problem.sizes):
        why = f"a larger one would not be faster; {at_once}"
    else:
        why = f"a larger one would not fit, or be slower; {at_once}"
    rounds = -(-share_of(problem.recipe) // strategy.micro_batch)
    what = "make one" if rules.devices == 1 else "are each device's share of one"
    makes = f"{strategy.micro_batch} x {rounds} conversations {what} optimizer step"
    return [_reason("micro_batch", strategy.micro_batch, why), _reason("accumulation", rounds, makes)]


def _checkpointing(problem: PlanningProblem, strategy: Strategy, peak: Peak) -> Reason:
    if problem.recipe.train.gradient_checkpointing != "auto":
        return _reason("checkpointing", strategy.checkpointing, "you set it")
    if strategy.checkpointing == "off":
        kept = show_size(peak.breakdown["activations"])
        return _reason("checkpointing", "off", f"all activations fit: {kept} at the peak")
    without = replace(strategy, checkpointing="off", offload=False)
    return _saving(problem, strategy, peak, "checkpointing", strategy.checkpointing, without)


def _optimizer(problem: PlanningProblem, strategy: Strategy, peak: Peak) -> list[Reason]:
    if problem.recipe.train.optimizer != "auto":
        return []
    if OPTIMIZERS[strategy.optimizer].bits != 8:
        return [_reason("train.optimizer", strategy.optimizer, "32-bit states fit, as used in QLoRA")]
    without = replace(strategy, optimizer=problem.strategies[0].optimizer)
    saved = show_size(problem.peak(without).process - peak.process)
    return [_reason("train.optimizer", strategy.optimizer, f"8-bit states save {saved} and hardly change the result")]


def _streamed(problem: PlanningProblem, strategy: Strategy, peak: Peak) -> Reason:
    layers, wait = len(peak.traced.layers), "ordinary memory" if strategy.streamed_from == "ram" else "a file"
    slots = show_size(peak.traced.resting["slots"])
    why = f"you set it; of {layers} layers so many wait in {wait}, and visit two slots of {slots} in all"
    if strategy.streamed_from == "disk" and not problem.has_ram_for(replace(strategy, streamed_from="ram")):
        why += "; ordinary memory has no room for them"
    return _reason("streamed_layers", strategy.streamed_layers, why)


def _packed(problem: PlanningProblem) -> Reason:
    if problem.packed:
        why = "conversations share rows without attending to each other, so there is no padding"
        without_mask = ", and attention needs no mask" if problem.varlen else ""
        return _reason("packed", True, why + without_mask)
    if not packing_is_wanted(problem.recipe.train):
        return _reason("packed", False, "of train.packing or train.attention, as you set them")
    return _reason("packed", False, "this model needs one row per conversation")


def _saving(
    problem: PlanningProblem, strategy: Strategy, peak: Peak, setting: str, value: object, without: Strategy
) -> Reason:
    """How much memory it saves, and how much time it costs, against `without` it."""
    saved = show_size(problem.peak(without).process - peak.process)
    slower = problem.seconds(strategy) / problem.seconds(without) - 1
    cost = f"takes about {slower:.0%} more time" if slower >= 0.005 else "costs almost no time"
    return _reason(setting, value, f"it saves {saved} and {cost}")


def _reason(setting: str, value: object, because: str) -> Reason:
    return {"setting": setting, "value": value, "because": because}
