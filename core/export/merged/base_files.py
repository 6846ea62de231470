"""What the base's folder holds beside its weights comes along into a merged model: processors, vocabularies, licences.

Weights of any kind stay behind, and so does code: a merged model brings none. What says how the model was trained is
written anew (core/export/shared/tokenizer_files.py), and files of other names that repeat it are made to agree.
"""

import json
import re
from pathlib import Path
from typing import Any

from core.basemodel.hub import INDEX
from core.export.proof.checks import ProofCheck
from core.export.shared.names import without_paths
from core.export.shared.source import ExportSource
from core.export.shared.tokenizer_files import exported_template, tokenizer_files
from core.model.load import load_tokenizer
from core.workspace import write_json

NAME = "files beside the weights"
MOST_BYTES, MOST_SETTINGS_BYTES = 50_000_000, 1_000_000
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pth?|ckpt|gguf|ggml|onnx\w*|h5|msgpack|np[yz]|pkl|pickle|joblib|tflite|pdparams)"
    r"|.*\.index\.json",
    re.IGNORECASE,
)
_OF_ITSELF = re.compile(r"\..*|readme.*|.*\.(png|jpe?g|gif|svg|webp|pdf|mp4)", re.IGNORECASE)
_BROUGHT = re.compile(r"[^.]+|.*\.(json|jinja|txt|md|model|tiktoken|ya?ml|spm|vocab|bpe)", re.IGNORECASE)
_WRITTEN = {"config.json", "generation_config.json", "adapter_config.json", "recipe.yaml", "curves.svg", INDEX}
# Of other programs, or of older ones, and said by the trained tokenizer itself.
_SPECIAL, _ADDED, _TEMPLATE = "special_tokens_map.json", "added_tokens.json", "chat_template.json"


def bring_along(source: ExportSource, folder: Path) -> dict[str, Any]:
    """Copy them into `folder`. Returns the line of `verified.checks`: how many of those that belong to it came along.

    Its `because` names what stays behind and is neither weights nor the base's own description.
    """
    base, check, left = source.base_folder, ProofCheck(NAME, "names"), []
    ours = {name.lower() for name in (*_WRITTEN, *(file.name for file in tokenizer_files(source.tokenizer)))}
    for file in sorted(base.iterdir()):
        if file.name.lower() in ours or _WEIGHTS.fullmatch(file.name) or _OF_ITSELF.fullmatch(file.name):
            continue
        why = _stays(file, base)
        if why:
            left.append(f"{file.name} ({why})")
            continue
        check.of += 1
        check.equal += 1
        _bring(source, file, folder / file.name)
    check.because = f"left behind: {', '.join(left)}" if left else ""
    return check.as_json()


def _stays(file: Path, source: Path) -> str:
    """Why a file of the base is left where it is; '' where it comes along."""
    root = source.parent.parent if source.parent.name == "snapshots" else source  # the Hub's cache links to its blobs
    if not file.exists() or not file.resolve().is_relative_to(root.resolve()):
        return "a link to another place"
    if not file.is_file():
        return "no plain file"
    if not _PLAIN.fullmatch(file.name):
        return "an odd name"
    if not _BROUGHT.fullmatch(file.name):
        return "code" if file.suffix == ".py" else "of an unknown kind"
    return "too large" if file.stat().st_size > MOST_BYTES else ""


def _bring(source: ExportSource, file: Path, to: Path) -> None:
    """Copy one file; settings without the paths of this machine, without code's names, with the template trained on."""
    tokenizer = load_tokenizer(source.base, source.tokenizer)
    if file.name == _SPECIAL:
        write_json(to, dict(tokenizer.special_tokens_map))
    elif file.name == _ADDED:
        write_json(to, tokenizer.get_added_vocab())
    elif file.name == _TEMPLATE:
        write_json(to, {"chat_template": exported_template(tokenizer)})
    else:
        content = file.read_bytes()
        to.write_bytes(_cleaned(content, exported_template(tokenizer)) if file.suffix == ".json" else content)


def _cleaned(content: bytes, template: str) -> bytes:
    """Settings in JSON; as they are where there is nothing to mend, or where they are no settings."""
    if len(content) > MOST_SETTINGS_BYTES:
        return content
    try:
        given = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(given, dict):
        return content
    kept = {key: value for key, value in without_paths(given).items() if key != "auto_map"}
    if "chat_template" in kept:
        kept["chat_template"] = template
    return content if kept == given else json.dumps(kept, ensure_ascii=False, indent=2).encode()
