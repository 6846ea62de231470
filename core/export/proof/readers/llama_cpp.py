"""A GGUF as llama.cpp opens it: its own tokenizer, template engine, first token, and rule for the end.

llama.cpp takes the first token off what a template writes where the file asks it to add one, and adds it again as it
splits the text. Both steps are one here, so that a text shows what the model is fed.
"""

from pathlib import Path
from typing import Any

from core.data.conversation import Message
from core.export.proof.llama_cpp import LlamaCpp, Refused
from core.export.proof.readers.reader import CannotRender

# It remembers in fp32 what it was given: of a large model a few hundred kilobytes a token.
LARGEST_CONTEXT = 2048


class LlamaCppReader:
    """The GGUF `model`, an adapter of the same kind over it or None, in `context` tokens."""

    name = "llama.cpp"

    def __init__(self, model: Path, context: int, adapter: Path | None = None) -> None:
        self.engine = LlamaCpp(model, context, adapter)

    def rendered(self, messages: list[Message], tools: list[dict[str, Any]] | None = None, prompt: bool = True) -> str:
        """As Reader's, with the first token that llama.cpp adds."""
        try:
            text = self.engine.rendered([dict(each) for each in messages], tools, prompt)
        except Refused as error:
            raise CannotRender(str(error).strip().rstrip(".")) from None
        return with_first(self.engine, text)

    def tokens(self, text: str) -> list[int]:
        """As Reader's."""
        return fed(self.engine, text)

    def reply(self, ids: list[int], most: int) -> list[int]:
        """The greedy reply to these tokens, ended by the tokens that the file names and those that llama.cpp knows, or
        after `most`."""
        return self.engine.reply(ids, most)


def open_gguf(artefact: dict[str, Any]) -> LlamaCppReader:
    """The GGUF `artefact["file"]` in `artefact["folder"]`, the adapter `over` it where there is one.

    `context` is what the model may be given; no more than a proof needs is taken.
    """
    folder, over = Path(artefact["folder"]), artefact.get("over")
    context = min(int(artefact["context"]), LARGEST_CONTEXT)
    return LlamaCppReader(folder / artefact["file"], context, folder / over if over else None)


def with_first(engine: LlamaCpp, text: str) -> str:
    """The text of a prompt with what llama.cpp puts before it."""
    return engine.first[1] + text if engine.first else text


def fed(engine: LlamaCpp, text: str) -> list[int]:
    """The tokens of a text that `with_first` gave."""
    return engine.tokens(text.removeprefix(engine.first[1]) if engine.first else text, add_special=True)
