"""Patterns by which adapters name their layers: such as other tools write them, and such as never end."""

from __future__ import annotations

# Of the kind that Unsloth (alternatives of `.*?` between words, a look ahead for experts) and ms-swift (a look ahead
# for the dot, or one that leaves the head out) write into adapter_config.json today.
PUBLISHED = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attn|mlp|dense).*?(?:q_proj|v_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}"
    r"(?!.*\.experts\.\d)\..*?(?:self_attn|attn|mlp|dense).*?\.(?:(?:q_proj|v_proj|up_proj)))",
    r"^(model(?=\.).*\.(q_proj|k_proj|down_proj))$",
    r"^(model)(?!.*(lm_head|output|emb|norm)).*proj",
    r"^(?!.*vision).*\.(?:o_proj|gate_proj)$",
    r".*layers\.(0|1)\.(?:mlp|self_attn)\.(?P<which>[a-z]+)_proj",
)
HOSTILE = (
    r"(a+)+$",
    r"(.*)*x",
    r"(a|a)*b",
    r"([a-z]+)*\.zz$",
    r"(([a-z])+.)+[A-Z]([a-z])+$",
    r"(?=(.*)*x)x",
    r"(.+)+\1z",
    r"(a*)(a*)(a*)(a*)(a*)\1\2\3b",
    r"(a{0,30}){0,30}b",
    r".*a.*a.*a.*a.*a.*a.*b",
    r".*?.*?.*?.*?.*?.*?.*?zz",
    "(" * 5000,
)
