"""Downloads from a stand-in Hub: the right files, how far they are, stopped, broken off, refused, and gone on with."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.basemodel.download import DownloadStopped, Progress, download
from core.basemodel.find import FoundModel, find_model, model_choices
from core.errors import ModelError, NibbleError
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.runs.tail import Tail
from core.system.process import child_environment, process_started
from core.train.base_model import have_base
from core.workspace import Workspace
from tests.hub import COMMIT, LET_IN, Hub, stand_in_hub, use_hub

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SETTINGS = {
    "config.json": json.dumps({"model_type": "llama"}),
    "generation_config.json": "{}",
    "tokenizer.json": '{"version": "1.0"}' + " " * 30_000,
    "tokenizer_config.json": '{"eos_token": "</s>"}',
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tool.jinja": "{{ tools }}",
    "model.safetensors.index.json": json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}),
}
OTHERS = ("README.md", "pytorch_model.bin", "original/consolidated.00.pth", "model.gguf", "consolidated.safetensors")


def _weights(file: Path, numbers: int, seed: int) -> None:
    entry = {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}
    header = json.dumps({"a": entry}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(numbers))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two shards of 400 kB, and with much that training does not need."""
    folder = tmp_path_factory.mktemp("model")
    for name, text in {**SETTINGS, **dict.fromkeys(OTHERS, "x" * 500)}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for seed, name in enumerate(SHARDS):
        _weights(folder / name, 400_000, seed)
    return folder


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The only Hub that this process knows, with the model, also as a gated one."""
    # Its files are random bytes, which suit no architecture: tests/core/basemodel has those that do.
    monkeypatch.setattr("core.train.base_model.refuse_misfit_online", lambda found, stop: None)
    monkeypatch.setattr("core.model.fit.refuse_misfit", lambda found: None)
    with stand_in_hub({"org/model": folder, "org/gated": folder}, gated=("org/gated",)) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        yield hub


def _get(found: FoundModel, seen: list[Progress] | None = None, stop_after: float | None = None) -> FoundModel:
    began = time.monotonic()
    told = [] if seen is None else seen
    return download(found, told.append, lambda: stop_after is not None and time.monotonic() - began > stop_after)


def _sent(hub: Hub) -> int:
    """Bytes of weights that have travelled."""
    return sum(sum(hub.sent(name)) for name in SHARDS)


def _ranges(hub: Hub) -> list[int]:
    """The bytes sent for each request that asked for a part of the weights."""
    return [each.sent for each in hub.asked if each.path.endswith(SHARDS) and each.range and each.sent]


def _refused(found: FoundModel) -> str:
    with pytest.raises(ModelError) as refusal:
        _get(found)
    return str(refusal.value)


def test_what_training_needs_is_downloaded_and_no_more(hub: Hub, folder: Path, tmp_path: Path) -> None:
    found = find_model("org/model")
    assert (found.folder, found.revision, found.parameters) == (None, COMMIT, 800_000)
    assert found.download_bytes == sum((folder / name).stat().st_size for name in (*SETTINGS, *SHARDS)) - sum(
        len(SETTINGS[name]) for name in ("config.json", "model.safetensors.index.json")
    )
    model = _get(found)
    there = {file.relative_to(model.folder).as_posix() for file in model.folder.rglob("*") if file.is_file()}
    assert there == {*SETTINGS, *SHARDS}
    assert all((model.folder / name).read_bytes() == (folder / name).read_bytes() for name in there)
    assert model.parameters == 800_000
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def test_a_downloaded_model_is_found_without_the_hub_and_by_other_tools(hub: Hub) -> None:
    from huggingface_hub import snapshot_download

    model = _get(find_model("org/model"))
    hub.asked.clear()
    assert find_model("org/model") == model
    assert find_model("org/model", COMMIT) == model
    assert _get(model) is model
    assert snapshot_download("org/model", local_files_only=True) == str(model.folder)
    assert not hub.asked


def test_progress_has_bytes_speed_and_time_left(hub: Hub) -> None:
    hub.bytes_per_second = 200_000  # each of two files at once: 400 kB take 2 s
    seen: list[Progress] = []
    began = time.monotonic()
    _get(find_model("org/model"), seen)
    seconds = time.monotonic() - began
    amounts = [state.done_bytes for state in seen]
    assert amounts == sorted(amounts)
    assert (amounts[-1], seen[-1].files_done) == (seen[-1].total_bytes, 9)
    halfway = min(seen, key=lambda state: abs(state.done_bytes - 400_000))
    assert halfway.bytes_per_second == pytest.approx(800_000 / seconds, rel=0.4)
    assert halfway.seconds_left == pytest.approx(seconds / 2, rel=0.5)
    assert halfway.line().startswith("Downloading model: ")
    assert " of 830 kB, file 8 of 9, " in halfway.line()
    assert halfway.line().endswith(" s left")


def test_a_line_reads_well() -> None:
    state = Progress("Qwen2.5-0.5B", 1_234_000_000, 3_100_000_000, 3, 9, 24_000_000.0, 80.0)
    assert state.line() == "Downloading Qwen2.5-0.5B: 1.2 of 3.1 GB, file 4 of 9, 24 MB/s, 1 min 20 s left"
    waiting = Progress("m", 900_000_000, 3_100_000_000, 9, 9, note="the connection was lost; trying again in 5 s")
    assert waiting.line() == (
        "Downloading m: 900 MB of 3.1 GB, file 9 of 9, the connection was lost; trying again in 5 s"
    )


def test_a_stop_is_obeyed_at_once_and_the_rest_travels_later(hub: Hub, tmp_path: Path) -> None:
    hub.bytes_per_second = 100_000
    found = find_model("org/model")
    began = time.monotonic()
    with pytest.raises(DownloadStopped):
        _get(found, stop_after=1.0)
    assert time.monotonic() - began < 2.0
    kept = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.incomplete"))
    assert kept > 50_000
    hub.bytes_per_second = None
    assert find_model("org/model").folder is None
    assert _get(find_model("org/model")).parameters == 800_000
    weights = sum(file.bytes for file in found.files if file.name in SHARDS)
    assert sum(_ranges(hub)) == weights - kept


def test_a_stop_does_not_wait_for_a_silent_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.bytes_per_second = 1  # one piece, then nothing for hours
    began = time.monotonic()
    with pytest.raises(DownloadStopped):
        _get(find_model("org/model"), stop_after=0.5)
    assert time.monotonic() - began < 2.0


def test_what_breaks_off_goes_on_by_itself_from_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.basemodel.fetch.PAUSES", (0.5, 0.5, 0.5))
    hub.breaks = [40_000, 150_000, 100_000, 100_000]  # tokenizer.json is the first, and is shorter
    seen: list[Progress] = []
    found = find_model("org/model")
    model = _get(found, seen)
    assert model.parameters == 800_000
    weights = sum(file.bytes for file in found.files if file.name in SHARDS)
    assert _sent(hub) == weights
    assert len(_ranges(hub)) == 3, hub.asked
    assert any("the connection was lost; trying again in 1 s" in state.line() for state in seen)


def test_a_network_that_falls_silent_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.basemodel.hub.SILENCE_SECONDS", 0.4)
    monkeypatch.setattr("core.basemodel.fetch.PAUSES", (0.5, 0.5, 0.5))
    hub.bytes_per_second = 1  # one piece, then nothing for hours
    seen: list[Progress] = []

    def progress(state: Progress) -> None:
        seen.append(state)
        if "the connection was lost" in state.note:
            hub.bytes_per_second = None

    assert download(find_model("org/model"), progress, lambda: False).parameters == 800_000
    assert any("trying again in 1 s" in state.line() for state in seen)
    assert any(each.range for each in hub.asked)


def test_too_many_requests_and_a_fault_of_the_hub_are_waited_out(hub: Hub) -> None:
    hub.faults = [(503, {}), (429, {"Retry-After": "1"}), (500, {})]
    seen: list[Progress] = []
    assert _get(find_model("org/model"), seen).parameters == 800_000
    lines = " ".join(state.line() for state in seen)
    assert "Hugging Face asks us to wait; trying again in 1 s" in lines
    assert "Hugging Face has a server error (503)" in lines


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((429, {"Retry-After": "4000"}), "Too many requests"),
        ((429, {"RateLimit": '"resolvers";r=0;t=900'}), "Too many requests"),
        ((403, {}), "does not allow reading org/model"),
        ((401, {}), "no longer accepts your access token"),
        ((503, {}), "has a server error (503)"),
        ((451, {}), "refuses to serve org/model (error 451)"),
    ],
)
def test_what_does_not_pass_is_said_in_one_sentence(hub: Hub, fault: tuple[int, dict[str, str]], said: str) -> None:
    hub.faults = [fault] * 10
    assert said in _refused(find_model("org/model"))


def test_no_network_in_mid_download_is_said_and_loses_nothing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    found = find_model("org/model")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    assert "Hugging Face cannot be reached (ConnectError)" in _refused(found)


def test_damaged_content_is_downloaded_again_once(hub: Hub) -> None:
    hub.damages = 1
    assert _get(find_model("org/model")).parameters == 800_000


def test_what_was_kept_and_spoiled_is_downloaded_anew(hub: Hub, tmp_path: Path) -> None:
    hub.bytes_per_second = 100_000
    with pytest.raises(DownloadStopped):
        _get(find_model("org/model"), stop_after=0.7)
    hub.bytes_per_second = None
    for file in (tmp_path / "cache").rglob("*.incomplete"):
        file.write_bytes(bytes(file.stat().st_size))
    assert _get(find_model("org/model")).parameters == 800_000


def test_content_that_stays_damaged_is_refused_and_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.damages = 20
    assert "was damaged twice" in _refused(find_model("org/model"))
    assert not [file for file in (tmp_path / "cache").rglob("*.safetensors") if file.exists()]


def test_a_gated_model_is_refused_with_its_link(hub: Hub) -> None:
    with pytest.raises(ModelError, match="org/gated is gated: accept its terms at http.*/org/gated, then sign in"):
        find_model("org/gated")


def test_who_is_signed_in_but_not_let_in_is_told_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_somebody_else")
    with pytest.raises(ModelError, match="your account does not have access yet") as refusal:
        find_model("org/gated")
    assert "hf_somebody" not in str(refusal.value)


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", LET_IN)
    seen: list[Progress] = []
    assert _get(find_model("org/gated"), seen).parameters == 800_000
    assert all(each.authorised != each.path.startswith("/storage/") for each in hub.asked)
    assert LET_IN not in "".join(state.line() for state in seen)


def test_room_on_the_disk_is_looked_for_before_anything_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_model("org/model")
    hub.asked.clear()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("core.basemodel.hub.shutil.disk_usage", lambda path: usage._replace(free=300_000))
    said = _refused(found)
    assert said.startswith("org/model needs 830 kB more on the disk, and ")
    assert " has 300 kB free. Free 530 kB, or set HF_HOME" in said
    assert not hub.asked


def test_a_disk_that_fills_up_is_said_and_nothing_is_lost(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [0]

    class Full(io.BufferedRandom):
        def write(self, content: Any) -> int:
            if written[0] > 200_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            written[0] += len(content)
            return super().write(content)

    def opened(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "ab" and self.suffix == ".incomplete":
            return Full(io.FileIO(str(self), "a+"))
        return real(self, mode, *rest, **more)

    real = Path.open
    with monkeypatch.context() as full:
        full.setattr(Path, "open", opened)
        said = _refused(find_model("org/model"))
    assert said.startswith("The disk is full: org/model does not fit into ")
    kept = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.incomplete"))
    assert kept > 100_000
    assert _get(find_model("org/model")).parameters == 800_000


def test_a_cache_that_cannot_be_written_to_is_said(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_model("org/model")

    def forbidden(self: Path, *rest: Any, **more: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    said = _refused(found)
    assert said.startswith("org/model cannot be downloaded: ")
    assert "is not writable. Change its permissions, or set HF_HOME" in said


def test_without_links_the_weights_lie_on_the_disk_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    model = _get(find_model("org/model"))
    assert all((model.folder / name).is_file() and not (model.folder / name).is_symlink() for name in SHARDS)
    assert not [file for file in (model.folder.parents[1] / "blobs").iterdir() if file.stat().st_size > 100_000]
    assert find_model("org/model") == model


def test_two_downloads_of_one_model_share_the_work(hub: Hub) -> None:
    hub.bytes_per_second = 400_000
    found = find_model("org/model")
    seen: list[Progress] = []
    other = threading.Thread(target=_get, args=(found,))
    other.start()
    time.sleep(0.3)
    _get(found, seen)
    other.join()
    weights = sum(file.bytes for file in found.files if file.name in SHARDS)
    assert _sent(hub) == weights
    assert any("another program is downloading it" in state.line() for state in seen)


def test_the_menu_offers_what_is_whole_and_not_what_was_begun(hub: Hub, tmp_path: Path) -> None:
    def offered() -> list[str]:
        return [choice.value for choice in model_choices(Workspace.open(tmp_path)) if choice.kind == "cache"]

    found = find_model("org/model")
    hub.bytes_per_second = 100_000
    with pytest.raises(DownloadStopped):
        _get(found, stop_after=0.5)
    assert offered() == []
    hub.bytes_per_second = None
    model = _get(found)
    assert offered() == ["org/model"]
    (model.folder / "model.safetensors.index.json").unlink()
    (model.folder / SHARDS[1]).unlink()
    assert offered() == []


def test_a_snapshot_with_weights_but_no_tokenizer_is_completed(hub: Hub) -> None:
    model = _get(find_model("org/model"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model.folder / name).unlink()
    found = find_model("org/model")
    assert found.folder is None
    hub.asked.clear()
    assert (_get(found).folder / "tokenizer.json").is_file()
    assert _sent(hub) == 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("config.json", "pytorch_model.bin"), "only pickled weights"),
        (("config.json", "model.gguf"), "is a GGUF"),
        (("config.json", "consolidated.safetensors"), "has no loadable weights"),
        (("config.json", "model.safetensors.index.json", SHARDS[0]), "has no loadable weights"),
        (("pytorch_model.bin",), "has no config.json"),
    ],
)
def test_a_repository_that_cannot_be_trained_is_refused_before_it_is_downloaded(
    hub: Hub, folder: Path, tmp_path: Path, files: tuple[str, ...], said: str
) -> None:
    (tmp_path / "other").mkdir()
    for name in files:
        shutil.copy(folder / name, tmp_path / "other" / name)
    hub.repos["org/other"] = tmp_path / "other"
    with pytest.raises(ModelError, match=said):
        find_model("org/other")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose base is only on the Hub."""
    run = create_run(Workspace.open(tmp_path / "workspace"), make_recipe({"model": "org/model"}), {})
    me = {"pid": os.getpid(), "pid_started": process_started(os.getpid())}
    run.write_status(state="preparing", started=time.time(), **me)
    return run


def _events(run: Run) -> list[str]:
    return [row["message"] for row in Tail(run.dir / "events.jsonl").read()]


def test_our_processes_tell_hugging_face_nothing_of_what_they_do() -> None:
    assert child_environment()["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_a_run_tells_of_its_download_and_keeps_the_commit(hub: Hub, run: Run) -> None:
    hub.bytes_per_second = 400_000
    told = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            told.add(run.status().message)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = have_base(run, run.recipe())
    done.set()
    watcher.join()
    assert model.parameters == 800_000
    assert any(line.startswith("Downloading model: ") and " of 830 kB, file " in line for line in told), told
    begun, ended = _events(run)
    assert begun.endswith("will be downloaded from Hugging Face: 830 kB in 9 files, commit 0123456.")
    assert ended.startswith("Downloaded 830 kB in ")
    assert run.base_revision() == COMMIT
    assert have_base(run, run.recipe()) == model


def test_a_run_is_stopped_while_it_downloads(hub: Hub, run: Run) -> None:
    hub.bytes_per_second = 50_000
    threading.Timer(0.7, run.request, ["stop"]).start()
    began = time.monotonic()
    with pytest.raises(DownloadStopped):
        have_base(run, run.recipe())
    assert time.monotonic() - began < 2.0
    assert _events(run)[-1].startswith("Stopped at ")
    assert _events(run)[-1].endswith(
        " of 830 kB. What was downloaded is kept, and the next start continues from there."
    )


def test_a_run_that_goes_on_has_the_weights_that_it_began_with(hub: Hub, run: Run, folder: Path) -> None:
    model = have_base(run, run.recipe())
    newer = "f" * 40
    refs = model.folder.parents[1] / "refs" / "main"
    assert refs.read_text() == COMMIT
    refs.write_text(newer)
    shutil.copytree(model.folder, model.folder.parent / newer)
    assert find_model("org/model").revision == newer
    assert have_base(run, run.recipe()) == model


def test_the_chat_tells_of_its_download_and_stops_it(hub: Hub, tmp_path: Path) -> None:
    from core.chat import worker
    from core.runs.chat_models import base_chat_model

    hub.bytes_per_second = 50_000
    chat = worker.Chat()
    voice = base_chat_model("org/model").as_request()
    request = {"op": "load", "number": 1, "workspace": str(tmp_path), "chat_model": voice}
    answers = chat.handle(request)
    assert next(answers)["progress"].startswith("Downloading model: ")
    chat.interrupt({"op": "stop", "numbers": [1]})
    with pytest.raises(NibbleError, match="The download was stopped"):
        list(answers)
