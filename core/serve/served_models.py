"""What an endpoint serves: every voice over one base, by the names that clients ask for."""

from __future__ import annotations

from core.runs.chat_models import ChatModel, base_chat_model, voices
from core.workspace import Workspace


class Served:
    """The voice that was asked for, and all others over the same base in the same bits: swapping costs no memory."""

    def __init__(self, workspace: Workspace, voice: ChatModel) -> None:
        self._workspace, self.voice = workspace, voice

    def models(self) -> dict[str, ChatModel]:
        """Voices by the name that clients use; the one that was asked for comes first. Looked up anew each time."""
        own = {name_of(self.voice): self.voice}
        base = base_chat_model(self.voice.model)
        others = [voice for voice in voices(self._workspace) if _same_base(voice, self.voice)]
        if base.quantization == self.voice.quantization:
            others.append(base)
        return own | {name_of(voice): voice for voice in others if name_of(voice) not in own}

    def find(self, name: str) -> ChatModel | None:
        """The voice of this name or key; None where there is none over this base."""
        if name in (name_of(self.voice), self.voice.key):
            return self.voice
        models = self.models()
        return models.get(name) or next((voice for voice in models.values() if voice.key == name), None)


def name_of(voice: ChatModel) -> str:
    """A voice as clients name it: its key without the kind; of a base its name."""
    return voice.key.partition(":")[2]


def _same_base(voice: ChatModel, other: ChatModel) -> bool:
    same = voice.model == other.model and voice.quantization == other.quantization
    return same and (voice.revision is None or voice.revision == other.revision)
