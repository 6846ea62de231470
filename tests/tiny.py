"""Tiny random models and small datasets that tests make for themselves: no hub can be reached from here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}{{ message['content'] + '<|im_end|>' }}"
    "{%- endgeneration -%}{{ '\\n' }}{%- else -%}{{ message['content'] + '<|im_end|>\\n' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
TEXTS = ["the quick brown fox jumps over the lazy dog", "hello there, how are you?", "a red ball, a blue kite"]


def tiny_tokenizer(folder: Path, template: str | None = TEMPLATE) -> Any:
    """A byte-level BPE of a few hundred tokens, saved to `folder`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw.train_from_iterator(TEXTS * 20, vocab_size=320, special_tokens=special, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(str(folder / "raw.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "raw.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    (folder / "raw.json").unlink()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


# What an architecture needs said in its own words, to be as small as the others.
SHAPES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 16},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
}


def tiny_model(folder: Path, architecture: str = "llama", template: str | None = TEMPLATE, **other: Any) -> Path:
    """A random two-layer model of `architecture` with its tokenizer in `folder`; `other` settings of its config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder, template)
    values = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **SHAPES.get(architecture, {}),
        **other,
    }
    config = AutoConfig.for_model(architecture, **values)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def chat_rows(count: int) -> list[dict[str, Any]]:
    """`count` short conversations in the `messages` format, of different lengths."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"hello {'there ' * (i % 5)}{i}"},
                {"role": "assistant", "content": f"the lazy dog {'jumps ' * (i % 7)}over {i}"},
            ]
        }
        for i in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write `rows` as JSON lines to `path`."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
