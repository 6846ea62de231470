"""Adapters from elsewhere are taken in whole and safe, or refused in a sentence with nothing left."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.export.import_adapter import import_adapter
from core.export.shared.destination import ExportError
from core.runs.chat_models import find_chat_model
from core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder as PEFT writes it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "starter", "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.x.lora_A.weight": np.ones((4, 8), np.float32)}, folder / "adapter_model.safetensors")
    (folder / "train.py").write_text("print('not wanted')")
    return folder


def _zipped(folder: Path, add: Callable[[zipfile.ZipFile], None] = lambda packed: None, below: str = "inner/") -> Path:
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.iterdir()):
            packed.write(file, below + file.name)
        add(packed)
    return target


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_zip_becomes_a_voice(packed: bool, adapter: Path, workspace: Workspace) -> None:
    made = import_adapter(workspace, _zipped(adapter) if packed else adapter, "Théirs ../x")
    assert made == workspace.adapters / "Theirs-..-x"
    assert sorted(path.name for path in made.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    voice = find_chat_model(workspace, f"adapter:{made.name}")
    assert (voice.model, voice.adapter) == ("starter", made)
    with pytest.raises(ExportError, match="already"):
        import_adapter(workspace, adapter, "Théirs ../x")


def _link(packed: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("inner/tokenizer.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    packed.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda packed: packed.writestr("../../evil.json", "{}"), "outside its folder"),
        (lambda packed: packed.writestr("/etc/evil.json", "{}"), "outside its folder"),
        (lambda packed: packed.writestr("C:\\evil.json", "{}"), "outside its folder"),
        (_link, "a link to another place"),
        (lambda packed: packed.writestr("inner/vocab.txt", b"\0" * 5_000_000), "far more than it is"),
        (lambda packed: [packed.writestr(f"inner/{n}.txt", "x") for n in range(501)], "at most 500"),
        (lambda packed: packed.writestr("other/adapter_config.json", "{}"), "not a single adapter"),
    ],
)
def test_a_zip_that_means_harm_is_not_unpacked(
    add: Callable[[zipfile.ZipFile], None], said: str, adapter: Path, workspace: Workspace
) -> None:
    with pytest.raises(ExportError, match=said):
        import_adapter(workspace, _zipped(adapter, add))
    assert list(workspace.adapters.iterdir()) == []


def _change(adapter: Path, **values: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_what_is_no_adapter_of_use_is_refused(adapter: Path, workspace: Workspace, tmp_path: Path) -> None:
    _change(adapter, peft_type="IA3")
    with pytest.raises(ExportError, match="of the kind IA3"):
        import_adapter(workspace, adapter)
    _change(adapter, peft_type="LORA", base_model_name_or_path="/home/mallory/models/llama")
    with pytest.raises(ExportError, match="'llama', a folder on another machine. Choose"):
        import_adapter(workspace, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"\x10" * 99)
    with pytest.raises(ExportError, match="is damaged"):
        import_adapter(workspace, adapter, base="starter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ExportError, match="only pickled weights"):
        import_adapter(workspace, adapter)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ExportError, match="neither a folder nor a readable zip"):
        import_adapter(workspace, tmp_path / "text.zip")
    assert list(workspace.adapters.iterdir()) == []


def test_a_link_in_a_folder_is_not_followed(adapter: Path, workspace: Workspace) -> None:
    (adapter / "tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(ExportError, match="is a link"):
        import_adapter(workspace, adapter)
