"""Which models an endpoint serves: every chat model over one base, by name."""

from core.runs.chat_models import ChatModel, base_chat_model, list_chat_models
from core.workspace import Workspace


class Served:
    """One chat model, and all others over the same base in the same bits: swapping them costs no memory."""

    def __init__(self, workspace: Workspace, chat_model: ChatModel) -> None:
        self._workspace, self.chat_model = workspace, chat_model

    def models(self) -> dict[str, ChatModel]:
        """The models by name, the endpoint's own first. Looked up on every call."""
        own = {name_of(self.chat_model): self.chat_model}
        base = base_chat_model(self.chat_model.model)
        others = [each for each in list_chat_models(self._workspace) if _same_base(each, self.chat_model)]
        if base.quantization == self.chat_model.quantization:
            others.append(base)
        return own | {name_of(each): each for each in others if name_of(each) not in own}

    def find(self, name: str) -> ChatModel | None:
        """The model with this name or key, None where there is none."""
        if name in (name_of(self.chat_model), self.chat_model.key):
            return self.chat_model
        models = self.models()
        return models.get(name) or next((each for each in models.values() if each.key == name), None)


def name_of(chat_model: ChatModel) -> str:
    """The name for clients: the model's key without its kind."""
    return chat_model.key.partition(":")[2]


def _same_base(chat_model: ChatModel, other: ChatModel) -> bool:
    same = chat_model.model == other.model and chat_model.quantization == other.quantization
    return same and (chat_model.revision is None or chat_model.revision == other.revision)
