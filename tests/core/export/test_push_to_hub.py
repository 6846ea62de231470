"""An upload is seen before it is made, private, and whole; refusals are sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.export.push_to_hub import plan_upload, push
from core.export.shared.destination import ExportError
from tests.hub import LET_IN, Hub, stand_in_hub, use_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, with somebody signed in; large files go the way of git's, which it knows."""
    from huggingface_hub import constants

    with stand_in_hub({}) as running:
        use_hub(running, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", LET_IN)
        yield running


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder as an export leaves it."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# It\n")
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / ".hidden").write_text("not this")
    return folder


def test_what_is_shown_is_uploaded_and_it_is_private(hub: Hub, made: Path) -> None:
    upload = plan_upload(made, "me/pirate")
    assert upload.files == (("README.md", 32), ("adapter_model.safetensors", 10_240))
    assert upload.heading == "2 files, 10 kB, to me/pirate, private"
    assert push(upload) == f"{hub.url}/me/pirate"
    assert hub.uploads.created["me/pirate"]["visibility"] == "private"
    assert hub.uploads.files["me/pirate"] == {name: (made / name).read_bytes() for name, _ in upload.files}


def test_a_public_repository_that_is_there_gets_nothing_private(hub: Hub, made: Path) -> None:
    hub.uploads.public = ("me/known",)
    with pytest.raises(ExportError, match="already exists and is public. Nothing was uploaded"):
        push(plan_upload(made, "me/known"))
    assert "me/known" not in hub.uploads.files
    push(plan_upload(made, "me/known", private=False))
    assert "me/known" in hub.uploads.files


def test_refusals_are_sentences(hub: Hub, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.uploads.refuse = 403
    with pytest.raises(ExportError, match="has no write access to me"):
        push(plan_upload(made, "me/pirate"))
    for name in ("pirate", "a/b/c", "me/--", ""):
        with pytest.raises(ExportError, match="is not a valid repository"):
            plan_upload(made, name)
    with pytest.raises(ExportError, match="is not an export"):
        plan_upload(tmp_path / "nothing", "me/pirate")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExportError, match="First sign in"):
        plan_upload(made, "me/pirate")
