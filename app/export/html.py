"""What the Export tab shows: what each format is, for whom and how large; how an export goes; its proof and its use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.server.downloads import SharedFiles
from app.ui.html import busy, date, empty, error_box, note_box, progress_bar, text
from core.basemodel.find import FoundModel, find_model
from core.errors import NibbleError
from core.export.jobs import ExportJob
from core.export.proof.report import check_name, check_result, is_equal, is_proved, told_checks
from core.export.source import folder_of
from core.runs.store import Run
from core.sizes import show_bytes

# Bytes a number, of what is written.
_BYTES = {"float16": 2.0, "bfloat16": 2.0, "float32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "f32": 4.0}
FILES_BYTES = 100_000
NOTHING = empty(
    "Nothing exported yet",
    "The proof that the export replies as the chat does will appear here, with instructions for using it.",
)


@dataclass(frozen=True)
class About:
    """A format, for a person."""

    title: str
    what: str
    whom: str


FORMATS = {
    "adapter": About(
        "Adapter",
        "Only what was learned: a small folder and a zip in PEFT format, with tokenizer, chat template, settings and "
        "model card. The base model is loaded separately.",
        "For Python with transformers and peft, servers that load adapters, and Nibble itself.",
    ),
    "merged": About(
        "Merged model",
        "Base model and adapter merged into one 16-bit model, in safetensors.",
        "For anything that loads a Hugging Face model: transformers, vLLM, MLX, more training or quantisation.",
    ),
    "gguf": About(
        "GGUF",
        "One file for llama.cpp, with tokenizer and chat template inside.",
        "For llama.cpp, LM Studio, Jan, koboldcpp. Llama, Mistral, Qwen 2 to 3 and Gemma families only.",
    ),
    "ollama": About(
        "Ollama",
        "A GGUF with a Modelfile: template, stop words and settings as in the chat, and one command to import it.",
        "For Ollama and programs that use it.",
    ),
}


def about(run: Run | None, part: str, to: str, gguf_type: str, apart: bool, precision: str) -> str:
    """What one gets of `run`, of its adapter `part`, for whom, and how large."""
    told = FORMATS[to]
    size = ""
    if run is not None:
        try:
            size = f"<p><b>{text(_size(run, part, to, gguf_type, apart, precision))}</b></p>"
        except NibbleError as error:
            size = error_box(f"The base model of this run is not where it was. {error}")
    return f'<div class="nb-gets"><p>{text(told.what)}</p><p class="nb-muted">{text(told.whom)}</p>{size}</div>'


def _size(run: Run, part: str, to: str, gguf_type: str, apart: bool, precision: str) -> str:
    held = folder_of(run, part)
    adapter = sum(file.stat().st_size for file in held.iterdir() if file.is_file())
    if to == "adapter" or (to == "gguf" and apart):
        return (
            f"About {show_bytes(adapter + FILES_BYTES)}{' in the folder, and as much in the zip' * (to == 'adapter')}."
        )
    found = find_model(run.recipe().model, run.base_revision())
    files = sum(file.stat().st_size for file in held.glob("*.json"))
    kind = gguf_type if to != "merged" else _own(found) if precision == "auto" else precision
    size = found.parameters * _BYTES[kind] + FILES_BYTES + files + adapter * apart
    return f"About {show_bytes(size)}, in {kind}."


def _own(found: FoundModel) -> str:
    own = str(found.config.get("dtype") or found.config.get("torch_dtype"))
    return own if own in ("float16", "bfloat16") else "bfloat16"


def state(job: ExportJob | None, shelf: SharedFiles) -> str:
    """How the export stands: its progress, or the proof and what to do with it."""
    if job is None:
        return NOTHING
    values = job.read()
    if values["state"] == "working":
        share = values.get("share")
        return busy(values["message"]) + (progress_bar(share) if share is not None else "")
    if values["state"] == "failed":
        return error_box(values["message"])
    if values["state"] == "stopped":
        return note_box(values["message"])
    return _done(values, shelf)


def _done(values: dict[str, Any], shelf: SharedFiles) -> str:
    result, to = values["result"], values["order"]["to"]
    folder = Path(result["dir"])
    if not folder.is_dir():
        return note_box(f"{folder.name} was moved or deleted after the export.")
    verified = result["verified"]
    whole = is_proved(verified)
    heading = "Verified" if whole else "Exported; check the proof"
    return (
        f'<div class="nb-card nb-exported"><header><span class="nb-state nb-{"finished" if whole else "stopped"}">'
        f"{heading}</span><div><h3>{text(folder.name)}</h3><small>{text(show_bytes(result['bytes']))} in "
        f"{len(result['files'])} files</small></div></header><p>{text(values['message'])}</p>{_checks(verified)}"
        f"<dl><dt>Folder</dt><dd><code>{text(folder)}</code></dd>"
        f"<dt>How to use it</dt><dd><pre>{text(use(to, result))}</pre></dd></dl>{_links(result, folder, shelf)}</div>"
    )


def _checks(verified: dict[str, Any]) -> str:
    """Each thing that was compared, by whom, and what came of it; an export of an earlier Nibble has no such list."""
    rows = ""
    for check in told_checks(verified):
        kind, mark = ("good", "✓") if is_equal(check) else ("bad", "!")
        kind, mark = (kind, mark) if check["of"] or kind == "bad" else ("none", "–")
        said = f"<b>{text(check_name(check))}</b><span>{text(check_result(check))}</span>"
        rows += f'<li class="nb-{kind}"><i>{mark}</i><div>{said}</div></li>'
    return f'<ul class="nb-doctor">{rows}</ul>' if rows else ""


def use(to: str, result: dict[str, Any]) -> str:
    """The command that uses what was made."""
    place = f'cd "{result["dir"]}"'
    if to == "ollama":
        return f"{place}\n{result['command']}"
    if to == "gguf":
        name = next(name for name in result["files"] if name.endswith(".gguf"))
        apart = f"BASE.gguf --lora {name}" if name.endswith("-adapter.gguf") else name
        return f"{place}\nllama-cli -m {apart} -cnv"
    return f"{place}\n{_lines(Path(result['dir']))}"


def _lines(folder: Path) -> str:
    """The lines of Python in an export's own README."""
    try:
        found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    except OSError:
        found = None
    return f"python  # then:\n{found[1]}" if found else ""


def _links(result: dict[str, Any], folder: Path, shelf: SharedFiles) -> str:
    """What the browser can fetch: the zip of an adapter, the file of a GGUF and what Ollama needs beside it."""
    loose = [folder / name for name in result["files"] if name.endswith(".gguf") or name == "Modelfile"]
    files = [Path(result["zip"])] if "zip" in result else loose
    links = [
        f'<a class="nb-fetch" href="{text(shelf.address(file))}" download>Download {text(file.name)} '
        f"({show_bytes(file.stat().st_size)})</a>"
        for file in files
        if file.is_file()
    ]
    return f"<p>{' '.join(links)}</p>" if links else ""


def earlier(jobs: list[ExportJob], shown: ExportJob | None) -> str:
    """Exports made before the one that is shown, the newest first."""
    rows = []
    for job in jobs:
        values = job.read()
        if (
            values["state"] == "done"
            and (shown is None or job.id != shown.id)
            and Path(values["result"]["dir"]).is_dir()
        ):
            result = values["result"]
            made = date(job.file.stat().st_mtime)
            cells = (made, FORMATS[values["order"]["to"]].title, show_bytes(result["bytes"]), result["dir"])
            rows.append(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in cells)}</tr>")
    if not rows:
        return ""
    return (
        "<details class='nb-earlier'><summary>Earlier exports</summary><table class='nb-table'><tbody>"
        f"{''.join(rows)}</tbody></table></details>"
    )
