"""The Export tab: what one gets, what is refused, and that only what was made can be fetched, by who has its id."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.context import Context
from app.export import html as export_html
from app.export.wire import ExportTab
from app.server.downloads import PREFIX, Downloads, SharedFiles
from core.export import jobs
from core.export.shared.options import ExportOptions
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.setup import llama_cpp


@pytest.fixture
def tab(context: Context) -> ExportTab:
    """The tab, laid out."""
    made = ExportTab(context)
    with gr.Blocks():
        made.build()
    return made


@pytest.fixture
def run(context: Context) -> Run:
    """A finished run with an adapter, of a name that wants to be HTML."""
    recipe = make_recipe({"model": "starter", "name": "<b>mine</b>"})
    made = create_run(context.workspace, recipe, {"file": "x", "sha256": "0", "name": "x"}, "finished")
    made.adapter.mkdir()
    (made.adapter / "adapter_config.json").write_text("{}")
    (made.adapter / "adapter_model.safetensors").write_bytes(b"0" * 2_000_000)
    return made


def _given(tab: ExportTab, run: Run | None, **values: Any) -> dict[Any, Any]:
    usual = {"run": run.id if run else None, "part": "", "to": "adapter", "onto": "dequantised", "precision": "auto"}
    usual |= {"gguf_type": "f16", "adapter_only": False, "out": "", **values}
    return {tab.layout.settings.get(name) or getattr(tab.layout, name): value for name, value in usual.items()}


def test_the_tab_says_what_one_gets_and_how_large(tab: ExportTab, context: Context, run: Run) -> None:
    filled = tab.events.fill()
    assert "About 2.1 MB in the folder, and as much in the zip." in filled[tab.layout.gets]
    assert filled[tab.layout.out] == str(context.workspace.exports / "b-mine-b-adapter")
    events = tab.events
    merged = events.chosen(True, _given(tab, run, to="merged"))
    assert (
        "About 9.9 MB, in float16." in merged[tab.layout.gets]
        and merged[tab.layout.settings["onto"]]["visible"]
        and not merged[tab.layout.settings["adapter_only"]]["visible"]
    )
    quarter = events.chosen(False, _given(tab, run, to="gguf", gguf_type="q8_0"))
    assert (
        "About 5.3 MB, in q8_0." in quarter[tab.layout.gets] and quarter[tab.layout.settings["adapter_only"]]["visible"]
    )


def test_the_best_and_the_checkpoints_can_be_chosen(tab: ExportTab, context: Context, run: Run) -> None:
    assert not tab.events.fill()[tab.layout.part].visible, "there is but one"
    kept = run.dir / "checkpoints" / "20"
    shutil.copytree(run.adapter, kept / "adapter")
    (kept / "adapter" / "adapter_model.safetensors").write_bytes(b"0" * 3_000_000)
    (kept / "manifest.json").write_text("{}")
    filled = tab.events.fill()
    assert filled[tab.layout.part].visible and filled[tab.layout.part].choices == [
        ("Final", ""),
        ("Step 20", "checkpoint/20"),
    ]
    chosen = tab.events.chosen(True, _given(tab, run, part="checkpoint/20"))
    assert "About 3.1 MB" in chosen[tab.layout.gets] and chosen[tab.layout.out].endswith("b-mine-b-step-20-adapter")
    gone = tab.events.chosen(True, _given(tab, run, part="checkpoint/7"))
    assert gone[tab.layout.part].value == "", "of another run, or gone meanwhile"


def test_a_place_that_is_taken_and_no_run_are_refused_in_the_tab(
    tab: ExportTab, context: Context, run: Run, tmp_path: Path
) -> None:
    events = tab.events
    assert "Choose a run" in events.make(_given(tab, None))[tab.layout.message]
    (tmp_path / "mine").write_text("thesis")
    assert "is a file" in events.make(_given(tab, run, out=str(tmp_path / "mine")))[tab.layout.message]
    assert jobs.jobs(context.workspace) == []


def _job(context: Context, folder: Path, **changes: Any) -> jobs.ExportJob:
    job = jobs.ExportJob(jobs.folder(context.workspace) / "20260101-000000-abc.json")
    order = {**vars(ExportOptions("adapter", folder)), "out": str(folder)}
    result = {"dir": str(folder), "files": ["README.md"], "bytes": 5, "zip": str(folder / "made.zip")}
    result["verified"] = {"prompts": 20, "equal": 20, "ties": 0}
    job.write(**{"state": "done", "message": "20 of 20 <i>equal</i>", "order": order, "result": result, **changes})
    return job


def test_the_proof_the_use_and_the_download_are_shown_escaped(context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "<i>made"
    folder.mkdir()
    (folder / "made.zip").write_bytes(b"zip")
    (folder / "README.md").write_text("```python\nprint('<hello>')\n```")
    html = export_html.state(_job(context, folder), context.shared_files)
    assert (
        "Verified" in html
        and "20 of 20 &lt;i&gt;equal&lt;/i&gt;" in html
        and "print(&#x27;&lt;hello&gt;&#x27;)" in html
    )
    assert f'href="{PREFIX}' in html and "<i>made" not in html


def test_each_thing_that_was_compared_has_a_line_and_what_differs_is_marked(context: Context, tmp_path: Path) -> None:
    checks = [
        {"name": "prompts as text", "by": "<b>peft</b>", "of": 60, "equal": 60, "because": ""},
        {
            "name": "greedy replies",
            "by": "transformers",
            "of": 20,
            "equal": 19,
            "because": "1 parts by a hair",
            "ties": 1,
        },
        {"name": "training continues from the prompt", "by": "transformers", "of": 9, "equal": 4, "because": "row 3"},
    ]
    result = {"dir": str(tmp_path), "files": ["README.md"], "bytes": 5}
    result["verified"] = {"prompts": 20, "equal": 19, "ties": 1, "checks": checks}
    html = export_html.state(_job(context, tmp_path, result=result), context.shared_files)
    assert "<b>Prompts as text</b><span>60 of 60 equal, by &lt;b&gt;peft&lt;/b&gt;.</span>" in html
    assert html.count('<li class="nb-good">') == 2, "an answer that parts where the model wavers is no fault"
    assert '<li class="nb-bad"><i>!</i><div><b>Training continues from the prompt</b><span>4 of 9 equal' in html
    assert "Exported; check the proof" in html


def test_what_had_nothing_to_compare_is_ticked_off_by_nobody(context: Context, tmp_path: Path) -> None:
    checks = [
        {"name": "prompts as text", "by": "Ollama", "of": 9, "equal": 9, "because": ""},
        {"name": "whole conversations as trained", "by": "Ollama", "of": 0, "equal": 0, "because": "only to answer"},
    ]
    result = {"dir": str(tmp_path), "files": ["a.gguf", "Modelfile", "README.md"], "bytes": 5}
    for name in result["files"]:
        (tmp_path / name).write_text("x")
    result["verified"] = {"prompts": 20, "equal": 20, "ties": 0, "checks": checks}
    order = {"to": "ollama", "out": str(tmp_path)}
    html = export_html.state(_job(context, tmp_path, result=result, order=order), context.shared_files)
    assert "9 of 9 equal, by Ollama&#x27;s rules." in html, "Ollama itself was not run"
    assert '<li class="nb-none"><i>–</i>' in html and html.count("nb-good") == 1
    assert "Download a.gguf" in html and "Download Modelfile" in html and "Download README.md" not in html


def test_llama_cpp_is_spoken_of_only_where_it_opens_the_format(
    tab: ExportTab, context: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "installed", lambda: False)
    place = tab.layout.llama_cpp.place
    for to, wanted in (("gguf", True), ("ollama", True), ("adapter", False), ("merged", False)):
        assert tab.events.about(run, _given(tab, run, to=to), True)[place].visible is wanted
    assert place not in tab.tick({}), "a clock does not bring it back"


def test_stopping_is_said_until_it_has_stopped(tab: ExportTab, context: Context, tmp_path: Path) -> None:
    seen: dict[str, Any] = {"working": True}
    _job(context, tmp_path, state="stopped", message="Stopped. Nothing was kept.")
    assert tab.tick(seen)[tab.layout.message] == ""
    assert tab.layout.message not in tab.tick(seen)


def test_an_export_whose_process_is_gone_has_failed(context: Context, tmp_path: Path) -> None:
    job = _job(context, tmp_path, state="working", message="Merging", share=0.5)
    job.file.with_suffix(".pid").write_text(json.dumps({"pid": 2**22 + 1, "started": 1.0}))
    assert "ended unexpectedly" in export_html.state(job, context.shared_files)


def _get(shelf: SharedFiles, path: str) -> tuple[int, bytes]:
    """What the middleware answers; 599 where it hands the request on."""
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 599, "headers": []})

    async def receive() -> Any:
        await asyncio.sleep(60)  # the browser stays
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "extensions": {}}
    asyncio.run(Downloads(inner, shelf)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_only_what_lies_on_the_shelf_is_handed_out(tmp_path: Path) -> None:
    shelf, made, other = SharedFiles(), tmp_path / "made.zip", tmp_path / "secret.txt"
    made.write_bytes(b"zip")
    other.write_text("secret")
    address = shelf.address(made)
    assert address == shelf.address(made) and len(address.split("/")[2]) >= 32
    assert _get(shelf, address) == (200, b"zip")
    for path in (
        f"{PREFIX}made.zip",
        f"{PREFIX}../secret.txt",
        f"{PREFIX}",
        f"{PREFIX}é/x",
        address[:-12] + "x/made.zip",
    ):
        assert _get(shelf, path)[0] == 404, path
    assert _get(shelf, "/elsewhere")[0] == 599
    made.unlink()
    assert _get(shelf, address)[0] == 404
