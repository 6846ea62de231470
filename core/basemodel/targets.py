"""Which layers of a model get an adapter and which modules are trained in full, by name. Imports no torch.

The names are those that the authors of an architecture gave: 'model.layers.0.self_attn.q_proj'. A layer is attention's
when the path to it says so; of attention, queries and values are found by their own name. Where an architecture
computes queries, keys and values in one matrix, that matrix is taken.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from core.errors import ModelError

Targets = str | Sequence[str]

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_QUERY_OR_VALUE = {"q_proj", "v_proj", "q", "v", "wq", "wv", "query", "value", "q_lin", "v_lin", "to_q", "to_v"}
_IN_ONE = {"query_key_value", "qkv_proj", "qkv", "Wqkv", "c_attn", "att_proj"}
SHOWN = 12


def wanted(name: str, targets: Targets) -> bool:
    """Whether the linear layer `name`, which is not the head, is one of `targets`."""
    *path, last = name.split(".")
    if targets == "all-linear":
        return True
    if isinstance(targets, str):
        in_attention = any(_ATTENTION.search(part) for part in path)
        return in_attention and (targets == "attention" or last in _QUERY_OR_VALUE or last in _IN_ONE)
    return any(is_called(name, each) for each in targets)


def is_called(name: str, asked: str) -> bool:
    """Whether `asked` names the module: by its whole path, or by the end of it."""
    return name == asked or name.endswith(f".{asked}")


def chosen(linear: Sequence[str], targets: Targets, beyond: Collection[str] = ()) -> list[str]:
    """Of the names of a model's linear layers without its head, the targets. Raises ModelError where one finds none.

    `beyond` are those that text does not reach: a word never means them, and a name does where it names no other.
    """
    reached = [name for name in linear if name not in beyond]
    if isinstance(targets, str):
        found = {name for name in reached if wanted(name, targets)}
        if not found:
            raise ModelError(
                f"lora.targets: this model has no layer named like {targets!r}. Name some: {kinds(reached)}."
            )
    else:
        called = {each: _called(each, reached) or _called(each, linear) for each in targets}
        unknown = [each for each, names in called.items() if not names]
        if unknown:
            raise ModelError(
                f"lora.targets: this model has no linear layer called {', '.join(unknown)}; it has {kinds(reached)}. "
                "The head and the embeddings can be fully trained instead: see lora.extra_modules."
            )
        found = {name for names in called.values() for name in names}
    return [name for name in linear if name in found]


def _called(asked: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if is_called(name, asked)]


def roots(names: Sequence[str]) -> str:
    """Where layers lie, for a person: the path down to the first that is numbered, or to the layer; each once."""
    return _listed(re.split(r"\.\d+(?:\.|$)", name)[0] for name in names)


def kinds(names: Sequence[str]) -> str:
    """The last parts of module names, each once, for a person: 'q_proj, k_proj'."""
    return _listed(name.rpartition(".")[2] for name in names)


def _listed(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:SHOWN]) + (", …" if len(unique) > SHOWN else "")
