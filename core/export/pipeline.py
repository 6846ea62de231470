"""One export from beginning to end: refused if it cannot be, then written, proved and described by its format."""

from typing import Any

from core.basemodel.architectures import needs_code
from core.basemodel.code_consent import require_agreed
from core.export.formats.registry import format_named
from core.export.shared.destination import ExportError, refuse_place
from core.export.shared.options import ExportOptions, Say
from core.export.shared.source import find_export_source
from core.export.shared.tokenizer_files import with_tokenizer
from core.runs.device_lock import hold
from core.runs.store import Run
from core.workspace import Workspace

_ADAPTER_CAN = "Export the adapter, which contains all that was learned and loads on the same base model."


def export(workspace: Workspace, run: Run, options: ExportOptions, say: Say) -> dict[str, Any]:
    """Make the export. Returns `dir`, `files`, `bytes` and `verified` (the proof); of an adapter also `zip`.

    Raises NibbleError in one sentence; then nothing of the export is left, unless it was killed and its format resumes.
    """
    refuse_place(options.out)
    to = format_named(options.to)
    source = find_export_source(run, options.part, lambda line: say(line, None))
    if to.merges and source.is_mixture:
        raise ExportError(
            f"{source.base.label} is a mixture of experts, which cannot be merged or exported as GGUF here: its "
            f"files store the experts in a different form than the model uses. {_ADAPTER_CAN}"
        )
    require_agreed(workspace, source.base)
    if to.merges and needs_code(source.base.config):
        raise ExportError(
            f"{source.base.label} uses its own code, which other programs would lack for a merged model or a GGUF. "
            f"{_ADAPTER_CAN}"
        )
    with hold(workspace, "export", run.name):  # on a GPU it needs the memory that a run or the chat may have
        result = to.write(with_tokenizer(source), options, say)
    files = sorted(path for path in options.out.rglob("*") if path.is_file())
    return {
        "dir": str(options.out),
        "files": [path.relative_to(options.out).as_posix() for path in files],
        "bytes": sum(path.stat().st_size for path in files),
        **result,
    }
