"""Where `data.path` leads: a sample, a dataset of the workspace, a file or folder, or one of the Hugging Face Hub."""

from pathlib import Path

from core.data.huggingface import fetch, looks_like_hub_id
from core.data.samples import find_sample
from core.data.store import find_dataset
from core.settings import DataSettings
from core.workspace import Workspace, as_path


def locate(data: DataSettings, workspace: Workspace) -> Path:
    """The file or folder that `data.path` means; a dataset of the Hugging Face hub is fetched first."""
    is_here = find_sample(data.path) is not None or as_path(data.path) is not None
    if not is_here and looks_like_hub_id(data.path):
        return fetch(workspace, data.path, data.config, data.split, validation=data.named_splits == "honour")
    return find_dataset(data.path)
