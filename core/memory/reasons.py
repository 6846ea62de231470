"""Why a plan chose what it chose, with what each choice saved or cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.memory.problem import Peak, PlanningProblem
from core.memory.strategy import Strategy, share_of
from core.sizes import show_size
from core.step.optimizer import OPTIMIZERS
from core.step.packing import packing_is_wanted

Reason = dict[str, Any]


def reasons_for(question: PlanningProblem, way: Strategy, peak: Peak) -> list[Reason]:
    """A reason for each choice, in the order in which a person reads them."""
    found = [*_batches(question, way), _checkpointing(question, way, peak), _packed(question)]
    found += _optimizer(question, way, peak)
    if way.offload:
        found.append(_saving(question, way, peak, "activation_offload", True, replace(way, offload=False)))
    if way.embeddings_in_ram:
        found.append(_saving(question, way, peak, "embeddings_in_ram", True, replace(way, embeddings_in_ram=False)))
    if way.heap == "returned":
        found.append(_saving(question, way, peak, "heap", way.heap, replace(way, heap="kept")))
    return found


def _batches(question: PlanningProblem, way: Strategy) -> list[Reason]:
    rules, largest = question.recipe.train, question.work(way.micro_batch).largest
    at_once = f"the largest micro-batch is {largest.packs} x {largest.width} tokens"
    if rules.micro_batch is not None:
        why = f"you set it; {at_once}"
    elif way.micro_batch == max(question.sizes):
        why = f"more would not be faster; {at_once}"
    else:
        why = f"with more at once it would not fit, or be slower; {at_once}"
    rounds = -(-share_of(question.recipe) // way.micro_batch)
    makes = f"{way.micro_batch} x {rounds} conversations make one optimizer step"
    if rules.devices > 1:
        makes = f"{way.micro_batch} x {rounds} conversations are each device's share of one optimizer step"
    return [_reason("micro_batch", way.micro_batch, why), _reason("accumulation", rounds, makes)]


def _checkpointing(question: PlanningProblem, way: Strategy, peak: Peak) -> Reason:
    if question.recipe.train.gradient_checkpointing != "auto":
        return _reason("checkpointing", way.checkpointing, "you set it")
    if way.checkpointing == "off":
        kept = show_size(peak.breakdown["activations"])
        return _reason("checkpointing", "off", f"all activations fit: {kept} at the peak")
    without = replace(way, checkpointing="off", offload=False)
    return _saving(question, way, peak, "checkpointing", way.checkpointing, without)


def _optimizer(question: PlanningProblem, way: Strategy, peak: Peak) -> list[Reason]:
    if question.recipe.train.optimizer != "auto":
        return []
    if OPTIMIZERS[way.optimizer].bits != 8:
        return [_reason("train.optimizer", way.optimizer, "its states fit in 32 bits, as QLoRA trains")]
    without = replace(way, optimizer=question.ways[0].optimizer)
    saved = show_size(question.peak(without).process - peak.process)
    return [_reason("train.optimizer", way.optimizer, f"states in 8 bits save {saved}, and hardly change the result")]


def _packed(question: PlanningProblem) -> Reason:
    if question.packed:
        return _reason("packed", True, "conversations share rows without seeing each other, so none is padded")
    if not packing_is_wanted(question.recipe.train):
        return _reason("packed", False, "of train.packing or train.attention, as you set them")
    return _reason("packed", False, "this model needs a row for each conversation")


def _saving(
    question: PlanningProblem, way: Strategy, peak: Peak, setting: str, value: object, without: Strategy
) -> Reason:
    """It saves so much, and takes so much more time, than `without` it."""
    saved = show_size(question.peak(without).process - peak.process)
    slower = question.seconds(way) / question.seconds(without) - 1
    cost = f"takes about {slower:.0%} more time" if slower >= 0.005 else "costs next to no time"
    return _reason(setting, value, f"it saves {saved} and {cost}")


def _reason(setting: str, value: object, because: str) -> Reason:
    return {"setting": setting, "value": value, "because": because}
