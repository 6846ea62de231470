"""A folder for Ollama as Ollama opens it: its Modelfile, the TEMPLATE evaluated as Go does, llama.cpp over the GGUF.

llama.cpp, which Ollama runs, adds the first token where the GGUF asks for it; a template that writes it too doubles it.
(An Ollama of August 2026 takes a leading `<bos>` off, and no other; older ones take nothing off.) What `.Tools` in the
template makes of tools is Ollama's own form of them: a template that does not speak of them cannot be given any.
"""

import re
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from core.data.conversation import Message
from core.export.proof.gotemplate import GoError
from core.export.proof.llama_cpp import LlamaCpp
from core.export.proof.readers.llama_cpp import LARGEST_CONTEXT, fed, with_first
from core.export.proof.readers.modelfile import BadModelfile, parse_modelfile
from core.export.proof.readers.ollama_template import OllamaTemplate
from core.export.proof.readers.reader import CannotRender

MODELFILE = "Modelfile"
# What Ollama takes out of earlier replies of the Qwen 3 family, whatever the template says.
_THOUGHTS = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
_WITHOUT_THOUGHTS = "qwen3"


class OllamaReader:
    """The model that `ollama create` would make of `folder`, in `context` tokens.

    Raises CannotRender for a Modelfile or a template that Ollama refuses, or that is not understood here.
    """

    name = "Ollama"

    def __init__(self, folder: Path, context: int) -> None:
        self._folder = folder
        try:
            self.modelfile = parse_modelfile((folder / MODELFILE).read_bytes().decode())
            if self.modelfile.template is None:  # Ollama would choose one by its version
                raise BadModelfile("it has no TEMPLATE")
            self._template = OllamaTemplate(self.modelfile.template)
        except (BadModelfile, GoError) as error:
            raise CannotRender(f"its Modelfile is not read: {error}") from None
        adapter = self.modelfile.adapter
        self.engine = LlamaCpp(folder / self.modelfile.model, context, folder / adapter if adapter else None)

    def rendered(self, messages: list[Message], tools: list[dict[str, Any]] | None = None, prompt: bool = True) -> str:
        """As Reader's, with the first token that llama.cpp adds."""
        if not prompt:
            raise CannotRender("Ollama lays conversations out only to answer them")
        if tools:
            raise CannotRender("the Modelfile's template takes no tools")
        try:
            text = self._template.render(self._without_thoughts([dict(each) for each in messages]))
        except GoError as error:
            raise CannotRender(str(error)) from None
        return with_first(self.engine, text)

    def _without_thoughts(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without thoughts where Ollama keeps none: where it knows them by the template's tags, no reply has any."""
        knows_tags = "thinking" in self._template.names
        for n, each in enumerate(messages):
            has_thoughts = each["role"] == "assistant" and "<think>" in (each.get("content") or "")
            if has_thoughts and (knows_tags or self._drops_thoughts(messages, n)):
                messages[n] = {**each, "content": _THOUGHTS.sub("", each["content"])}
        return messages

    def _drops_thoughts(self, messages: list[dict[str, Any]], place: int) -> bool:
        """Whether it takes them out of the reply at `place`, as it does of Qwen 3's before the last question."""
        last = max((n for n, each in enumerate(messages) if each["role"] == "user"), default=0)
        return place < last and architecture(self._folder / self.modelfile.model) == _WITHOUT_THOUGHTS

    def tokens(self, text: str) -> list[int]:
        """As Reader's."""
        return fed(self.engine, text)

    def reply(self, ids: list[int], most: int) -> list[int]:
        """The greedy reply to these tokens, ended as by llama.cpp, and by the Modelfile's stop words of plain text."""
        return self.engine.reply(ids, most, self._stop_words)

    @property
    def _stop_words(self) -> list[str]:
        return self.modelfile.parameters.get("stop", [])

    def up_to_stop_words(self, reply: list[int]) -> list[int]:
        """A reply as Ollama would cut it: without the first stop word of plain text, and what follows that."""
        text = self.engine.text(reply)
        words = [word for word in self._stop_words if len(self.engine.tokens(word)) > 1]
        places = [place for place in map(text.find, words) if place >= 0]
        return self.engine.within(reply, text[: min(places)]) if places else reply


def open_ollama(artefact: dict[str, Any]) -> OllamaReader:
    """The Modelfile in `artefact["folder"]`. Raises CannotRender where Ollama would refuse it."""
    return OllamaReader(Path(artefact["folder"]), min(int(artefact["context"]), LARGEST_CONTEXT))


def architecture(model: Path) -> str:
    """What the GGUF says that it is."""
    return str(GGUFReader(model).fields["general.architecture"].contents())
