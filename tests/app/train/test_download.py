"""The download beside the model: offered where something is missing, done in the background, stopped by a press."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.context import Context
from app.train import check_html
from app.train.download import DownloadSession
from app.train.wire import TrainTab
from tests.hub import Hub, stand_in_hub, use_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one model of 300 kB."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"a": {"dtype": "U8", "shape": [300_000], "data_offsets": [0, 300_000]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(300_000))
    with stand_in_hub({"org/model": folder}) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        # Its files are random bytes, which suit no architecture: tests/core/basemodel has those that do.
        monkeypatch.setattr("app.train.download.refuse_misfit_online", lambda found, stop: None)
        yield hub


def _wait(downloads: DownloadSession, until: Any) -> None:
    deadline = time.monotonic() + 10
    while not until() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert until(), downloads.html()


def test_nothing_is_offered_for_a_model_that_is_here() -> None:
    downloads = DownloadSession()
    downloads.offer("starter", 0)
    assert (downloads.html(), downloads.label()) == ("", "")
    downloads.press()
    assert not downloads.busy


def test_a_press_downloads_and_the_page_looks_anew(hub: Hub, context: Context, train_tab: TrainTab) -> None:
    downloads, seen = train_tab.session.downloads, dict[str, str]()
    place, button, said = train_tab.layout.form.download.all()
    downloads.offer("org/model", 300_000)
    shown = train_tab.tick(seen)
    assert shown[place].visible and shown[button].visible and shown[button].value == "Download 300 kB now"
    assert "300 kB will be downloaded when training starts, or now" in shown[said]
    hub.bytes_per_second = 300_000
    pressed = train_tab.events.download()
    assert pressed[button].value == "Stop the download"
    _wait(downloads, lambda: "Downloading model: " in downloads.html() and "kB/s" in downloads.html())
    assert "nb-busy" in train_tab.tick(seen)[said]
    _wait(downloads, lambda: not downloads.busy)
    ended = train_tab.tick(seen)
    assert "org/model is on this machine." in ended[said]
    assert not ended[button].visible
    assert ended[train_tab.layout.read] == "downloaded 1"
    assert not {button, said, train_tab.layout.read} & set(train_tab.tick(seen))


def test_a_second_press_stops_and_a_third_goes_on(hub: Hub) -> None:
    hub.bytes_per_second = 100_000
    downloads = DownloadSession()
    downloads.offer("org/model", 300_000)
    downloads.press()
    _wait(downloads, lambda: "kB/s" in downloads.html())
    downloads.press()
    _wait(downloads, lambda: not downloads.busy)
    assert "What was downloaded is kept" in downloads.html()
    assert downloads.label() in {f"Download {left} kB now" for left in range(100, 300)}
    hub.bytes_per_second = None
    downloads.press()
    _wait(downloads, lambda: downloads.finished == 1)


def test_what_fails_is_said_where_the_person_looks(hub: Hub) -> None:
    downloads = DownloadSession()
    downloads.offer("org/none", 1)
    downloads.press()
    _wait(downloads, lambda: not downloads.busy)
    assert "There is no model org/none on Hugging Face" in downloads.html()
    downloads.offer("org/model", 300_000)
    assert "Not on this machine yet" in downloads.html()


def test_the_check_shows_what_will_be_downloaded() -> None:
    found = {"errors": [], "ok": True, "model": {"parameters": 494_032_768, "download_bytes": 3_100_000_000}}
    assert "3.1 GB" in check_html.check(found)
