"""The README's own part for GGUF files: what they are and how llama.cpp uses them. Imports no torch."""

from core.export.card.model_card import ModelCard
from core.export.shared.source import ExportSource

_TAGS = ("gguf", "llama.cpp")


def gguf_name(source: ExportSource, kind: str) -> str:
    """The file's name: the run's, and the tensors' type or `adapter`."""
    return f"{source.name}-{kind}.gguf"


def model_card(source: ExportSource, kind: str) -> ModelCard:
    """Of a merged model in tensors of `kind`."""
    name = gguf_name(source, kind)
    return ModelCard(
        "a GGUF for llama.cpp",
        f"`{source.base_name}` with an adapter merged in, as one file in {kind}, with tokenizer and chat template: "
        "for llama.cpp, LM Studio, Jan, koboldcpp, Ollama and others that read GGUF. Trained with Nibble.",
        f"```\nllama-cli -m {name} -cnv\nllama-server -m {name}\n```",
        "gguf",
        _TAGS,
    )


def adapter_card(source: ExportSource, kind: str) -> ModelCard:
    """Of an adapter alone."""
    name = gguf_name(source, "adapter")
    return ModelCard(
        "a GGUF adapter for llama.cpp",
        f"A LoRA adapter for a GGUF of `{source.base_name}`, which is not in it. Trained with Nibble over the base in "
        f"{source.recipe.quantization.bits} bits; over a GGUF in other bits answers can differ a little.",
        f"```\nllama-cli -m BASE.gguf --lora {name} -cnv\nllama-server -m BASE.gguf --lora {name}\n```",
        "gguf",
        (*_TAGS, "lora"),
    )
