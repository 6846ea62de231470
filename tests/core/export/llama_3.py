"""A tiny model whose tokenizer and chat template are as Llama 3.2's."""

from __future__ import annotations

from pathlib import Path

from tests.tiny import TEXTS, tiny_model

# As Llama 3.2's: the first token, a system turn with the date whatever comes, and what is said trimmed.
LLAMA_3_2 = (
    "{{- bos_token }}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
    "{{- strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' }}{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


def llama_3(folder: Path, template: str = LLAMA_3_2) -> Path:
    """A tiny model whose tokenizer puts a first token before every text, as Llama 3's does."""
    from tokenizers import ByteLevelBPETokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tiny_model(folder)
    raw = ByteLevelBPETokenizer()
    named = ["end_of_text", "begin_of_text", "eot_id", "start_header_id", "end_header_id"]
    special = [f"<|{each}|>" for each in named]
    raw.train_from_iterator([*TEXTS, "12345 12345"] * 20, vocab_size=320, special_tokens=special, show_progress=False)
    begin = processors.TemplateProcessing(single=f"{special[1]} $A", special_tokens=[(special[1], 1)])
    raw._tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, bos_token=special[1], eos_token=special[2], pad_token=special[0]
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
