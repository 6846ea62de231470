"""The share of a mixture of experts that is active for one token, from its config alone."""

from typing import Any

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_k", "num_experts_per_token")


def active_share(config: dict[str, Any], parameters: int) -> float:
    """The share of `parameters` that computes for one token: 1 where there are no experts, or the config does not say.

    An expert is three matrices, (inner, hidden) or its transpose, as in all mixtures since Mixtral.
    """
    experts, chosen = _first(config, _EXPERTS), _first(config, _CHOSEN)
    inner = _first(config, ("moe_intermediate_size", "intermediate_size"))
    hidden, layers = _first(config, ("hidden_size",)), _first(config, ("num_hidden_layers",))
    if not experts or not chosen or chosen >= experts:
        return 1.0
    layers -= _first(config, ("first_k_dense_replace",))
    idle = layers * (experts - chosen) * 3 * inner * hidden
    return 1 - idle / parameters if 0 < idle < parameters else 1.0


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int)), 0)
