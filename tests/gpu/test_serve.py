"""OpenAI's API from a card: `python launch.py serve`, asked by OpenAI's own client."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest

from core.workspace import ROOT
from tests.gpu.command_line import command, environment
from tests.waiting import until


@pytest.mark.full
def test_a_served_model_answers_from_the_card_and_gives_it_back(tiny: Path, tmp_path: Path, machine: Any) -> None:
    asked = command("serve", f"base:{tiny}", "--port", "0", "--json", "--data-dir", str(tmp_path))
    running = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
    assert running.stdout is not None
    try:
        told = json.loads(running.stdout.readline())
        client = openai.OpenAI(base_url=told["url"], api_key=told["key"], max_retries=0)
        messages: Any = [{"role": "user", "content": "hello there"}]
        answer = client.chat.completions.create(model=told["models"][0], messages=messages, max_tokens=4, temperature=0)
        assert answer.usage is not None and answer.usage.completion_tokens > 0
        others = [each for each in machine.process if each.pid not in (0, os.getpid())]
        assert [each.bytes > 450 * 2**20 for each in others] == [True], "one process, the chat's, is on the card"
        chat = others[0].pid
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
    until(lambda: not Path(f"/proc/{chat}").exists())
