"""A recipe's adapter in PEFT's terms, for a loaded model: finds and checks its targets and extra modules."""

from peft import LoraConfig
from transformers import PreTrainedModel

from core.basemodel.targets import chosen, is_called, kinds, roots
from core.errors import ModelError
from core.model.lora_init import alpha_for_twice_the_rank
from core.model.moe import experts_of, fused_weights
from core.model.text_reach import LINEAR, reach
from core.settings import LoraSettings


def lora_config(model: PreTrainedModel, settings: LoraSettings) -> LoraConfig:
    """The recipe's adapter in PEFT's terms, for this model. Raises ModelError where a module is not in it."""
    _refuse_for_experts(model, settings)
    extra = extra_modules(model, settings.extra_modules)
    stabilised = settings.scaling == "rank_stabilised"
    twice = settings.init == "pissa"
    fused: list[str] = []
    if settings.targets == "all-linear":
        fused = [f"{name}.{weight}" for name, module in experts_of(model) for weight in fused_weights(module)]
    return LoraConfig(
        r=settings.rank * (2 if twice else 1),
        lora_alpha=alpha_for_twice_the_rank(settings.alpha, stabilised) if twice else settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=stabilised,
        use_dora=settings.dora,
        target_modules=target_modules(model, settings),
        target_parameters=fused or None,
        modules_to_save=extra or None,
        ensure_weight_tying=bool(extra) and _embeddings_are_tied(model, extra),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _refuse_for_experts(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Raise ModelError for what PEFT does not support for fused experts: the adapter could not be loaded again."""
    if settings.targets != "all-linear" or next(experts_of(model), None) is None:
        return
    unknown = [name for name, wanted in (("lora.dropout", settings.dropout), ("lora.dora", settings.dora)) if wanted]
    unknown += [f"lora.init {settings.init}"] if settings.init != "default" else []
    if unknown:
        raise ModelError(
            f"This model is a mixture of experts, and adapters on experts do not support {' or '.join(unknown)}. "
            f"Turn it off, or set lora.targets to attention, which leaves the experts unchanged."
        )


def target_modules(model: PreTrainedModel, settings: LoraSettings) -> str | list[str]:
    """Which linear layers get an adapter, never the head: 'all-linear', or their full names.

    PEFT's 'all-linear' includes what text never reaches, such as a vision tower, where an adapter would cost parameters
    and learn nothing; in mixtures it includes the routers and, in some families, not the experts. There the layers are
    named one by one.
    """
    found = reach(model)
    left_out = found.unreached or found.choosers
    if settings.targets == "all-linear" and not left_out and next(experts_of(model), None) is None:
        return "all-linear"
    return chosen(_linear(model), settings.targets, found.unreached)


def targets_note(model: PreTrainedModel, settings: LoraSettings) -> str:
    """A sentence about layers that cannot learn from text, left out or asked for all the same; '' without such."""
    beyond, linear = reach(model).unreached, _linear(model)
    left = [name for name in linear if name in beyond]
    asked = [name for name in chosen(linear, settings.targets, beyond) if name in beyond]
    if asked:
        return (
            f"Text never reaches {len(asked):,} of the layers that lora.targets names ({roots(asked)}): an adapter "
            f"there would learn nothing."
        )
    what = f"{len(left):,} linear layer{'s' * (len(left) != 1)} ({roots(left)})"
    return f"Text never reaches {what} of this model, so they get no adapter." if left else ""


def _linear(model: PreTrainedModel) -> list[str]:
    """The names of the linear layers that can have an adapter: not the head, and not routers."""
    head, choosers = model.get_output_embeddings(), reach(model).choosers
    linear = [name for name, module in model.named_modules() if isinstance(module, LINEAR) and module is not head]
    return [name for name in linear if name not in choosers]


def extra_modules(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """The full names of the modules to train in full. Raises ModelError where one is missing or cannot be trained."""
    named = dict(model.named_modules())
    ends = {"embeddings": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    found: list[str] = []
    for each in wanted:
        if each in ends:
            names = [name for name, module in named.items() if module is ends[each]]
        else:
            names = [name for name, module in named.items() if is_called(name, each)]
        whole = [name for name in names if next(iter(named[name].parameters()), None) is not None]
        if not whole:
            known = kinds(
                [name for name, module in named.items() if next(module.parameters(recurse=False), None) is not None]
            )
            raise ModelError(
                f"lora.extra_modules: this model has no module {each!r}. It has embeddings, head, {known}."
            )
        if any(not parameter.is_floating_point() for name in whole for parameter in named[name].parameters()):
            raise ModelError(
                f"lora.extra_modules: {each} is held in 4 or 8 bits and cannot be fully trained. Give it an adapter "
                f"through lora.targets, or set quantization.bits to 16."
            )
        found += [name for name in whole if name not in found]
    return found


def _embeddings_are_tied(model: PreTrainedModel, extra: list[str]) -> bool:
    """Whether the input embeddings and the head are one matrix that is among `extra`, and has to stay one."""
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    if outer is None or inner.weight is not outer.weight:
        return False
    named = dict(model.named_modules())
    return any(named[name] is inner or named[name] is outer for name in extra)
