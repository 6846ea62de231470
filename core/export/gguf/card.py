"""The README's own part for GGUF files: what they are and how llama.cpp uses them. Imports no torch."""

from __future__ import annotations

from core.export.model_card import ModelCard
from core.export.source import ExportSource

_TAGS = ("gguf", "llama.cpp")


def gguf_name(subject: ExportSource, kind: str) -> str:
    """The file's name: the run's, and the tensors' type or `adapter`."""
    return f"{subject.name}-{kind}.gguf"


def model_card(subject: ExportSource, kind: str) -> ModelCard:
    """Of a merged model in tensors of `kind`."""
    name = gguf_name(subject, kind)
    return ModelCard(
        "a GGUF for llama.cpp",
        f"`{subject.base_name}` with an adapter merged in, as one file in {kind}, with tokenizer and chat template: "
        "for llama.cpp, LM Studio, Jan, koboldcpp, Ollama and others that read GGUF. Trained with Nibble.",
        f"```\nllama-cli -m {name} -cnv\nllama-server -m {name}\n```",
        "gguf",
        _TAGS,
    )


def adapter_card(subject: ExportSource, kind: str) -> ModelCard:
    """Of an adapter alone."""
    name = gguf_name(subject, "adapter")
    return ModelCard(
        "a GGUF adapter for llama.cpp",
        f"A LoRA adapter for a GGUF of `{subject.base_name}`, which is not in it. Trained with Nibble on the base "
        f"model in {subject.recipe.quantization.bits} bits; with a GGUF in other precision, replies can differ "
        f"slightly.",
        f"```\nllama-cli -m BASE.gguf --lora {name} -cnv\nllama-server -m BASE.gguf --lora {name}\n```",
        "gguf",
        (*_TAGS, "lora"),
    )
