"""The chat opens a base from its store, says so, and replies what it does without."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.chat.client import ChatClient
from core.generation.sampling import Sampling
from core.runs.chat_models import base_chat_model
from core.workspace import Workspace

ASK = [{"role": "user", "content": "hello there"}]
GREEDY = Sampling(max_new_tokens=8, greedy=True)


def test_the_chat_replies_the_same_over_a_stored_base(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, model, replies = Workspace.open(tmp_path), base_chat_model(str(tiny)), []
    for kept, stores in (("never", 0), ("always", 1), ("always", 1)):
        monkeypatch.setenv("NIBBLE_STORES", kept)
        client = ChatClient(workspace)
        try:
            replies.append([*client.stream(model, ASK, GREEDY)][-1].text)
        finally:
            client.close()
        assert len(list(workspace.quantised.glob("*/manifest.json"))) == stores
    assert replies[0] == replies[1] == replies[2] != ""
