"""Merges an adapter into its base, shard by shard: memory holds adapter and one matrix at a time, the disk the rest.

On an 8B's matrices that took 1.4 GB beyond the process itself, 2.2 GB where numbers are rounded to fp16, at any depth
(tests/core/export/test_merge_memory.py, on a CPU). Finished shards are listed in a manifest, so that a merge that was
killed goes on with the next one. The result is never rounded to 4 bits again: it holds 16-bit (or fp32) weights.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from core.basemodel.find import weight_files
from core.basemodel.hub import INDEX
from core.export.card.model_card import ModelCard, sample_prompt
from core.export.merged.shards import Planned, into_shards, shard_name, write_shard
from core.export.merged.weights import MergedWeights, Stored
from core.export.proof.verify import NEW_TOKENS
from core.export.shared.options import Onto, Precision, Say
from core.export.shared.source import ExportSource
from core.export.shared.tokenizer_files import write_companions
from core.sizes import show_bytes
from core.workspace import read_json, sha256_of, write_json

MANIFEST = ".merge.json"
SHARD_BYTES = 2_000_000_000
COMPANION_BYTES = 60_000_000


def precision_of(wanted: Precision, tensors: list[Stored]) -> torch.dtype:
    """The dtype to write: the base's own 16-bit one; of a base in fp32 the one that its range needs no thought for."""
    if wanted != "auto":
        return {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[wanted]
    own = {each.dtype for each in tensors if each.dtype.is_floating_point}
    return torch.float16 if own == {torch.float16} else torch.bfloat16


def write_merged(
    source: ExportSource,
    weights: MergedWeights,
    folder: Path,
    dtype: torch.dtype,
    say: Say,
    shard_bytes: int = SHARD_BYTES,
    exact: bool = True,
) -> None:
    """Write the merged model with its tokenizer, template and settings into `folder`. Raises ExportError, OSError.

    `exact`: what is not changed keeps its own dtype where the base's files have several, such as a router in fp32.
    `say` gets a line for a person and the share that is done, from 0 to 1, after each tensor.
    """
    stored = {each.key: each for each in (*weights.tensors, *weights.others)}
    shards = into_shards(planned(weights, dtype, exact), shard_bytes)
    total = sum(tensor.bytes for shard in shards for tensor in shard)
    finished = _go_on(folder, _mark(source, weights, dtype, shards))
    done = 0
    for index, shard in enumerate(shards):
        name = shard_name(index, len(shards))

        def value_of(tensor: Planned) -> torch.Tensor:
            nonlocal done
            value = weights.merged(stored[tensor.key])
            done += tensor.bytes
            say(f"Merging: {show_bytes(done)} of {show_bytes(total)}", done / total)
            return value

        if finished.get("shards", {}).get(name):
            done += sum(tensor.bytes for tensor in shard)
            continue
        finished["shards"][name] = write_shard(folder / name, shard, value_of)
        write_json(folder / MANIFEST, finished)
    if len(shards) > 1:
        places = {tensor.key: shard_name(i, len(shards)) for i, shard in enumerate(shards) for tensor in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    write_companions(source, folder, dtype)


def merged_bytes(weights: MergedWeights, dtype: torch.dtype, exact: bool = True) -> int:
    """What the merged model takes on the disk."""
    return sum(each.bytes for each in planned(weights, dtype, exact)) + COMPANION_BYTES


def planned(weights: MergedWeights, dtype: torch.dtype, exact: bool = True) -> list[Planned]:
    """Every tensor of the base's files as it will be written; what the model does not load stays as it is."""
    several = exact and len({each.dtype for each in weights.tensors if each.dtype.is_floating_point}) > 1

    def dtype_of(each: Stored) -> torch.dtype:
        left_alone = not each.name or (several and not weights.is_changed(each))
        return each.dtype if left_alone or not each.dtype.is_floating_point else dtype

    return [Planned(each.key, each.shape, dtype_of(each)) for each in (*weights.tensors, *weights.others)]


def _mark(source: ExportSource, weights: MergedWeights, dtype: torch.dtype, shards: list[list[Planned]]) -> str:
    """What the shards depend on: another adapter, base, way, dtype or division begins anew."""
    parts: list[Any] = [str(dtype), str(weights.device.type), str(weights.dtype), weights.onto]
    parts.append([[(tensor.key, str(tensor.dtype)) for tensor in shard] for shard in shards])
    parts.append(sha256_of(source.adapter / "adapter_model.safetensors"))
    for file in weight_files(source.base_folder):
        about = file.stat()
        parts.append([file.name, about.st_size, about.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _go_on(folder: Path, mark: str) -> dict[str, Any]:
    """What an earlier try has finished in `folder`; without such the folder is cleared."""
    kept = read_json(folder / MANIFEST)
    if isinstance(kept, dict) and kept.get("mark") == mark:
        whole = {name: sha for name, sha in kept["shards"].items() if _is(folder / name, sha)}
        return {"mark": mark, "shards": whole}
    shutil.rmtree(folder)
    folder.mkdir()
    return {"mark": mark, "shards": {}}


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and sha256_of(file) == sha256


def merged_card(source: ExportSource, onto: Onto, dtype: torch.dtype) -> ModelCard:
    """The README's own part: what the folder is and the lines that make it answer a prompt of the run."""
    onto_what = (
        "The adapter was merged into the weights that the chat uses: quantised to 4 bits as in training, then "
        "dequantised. This is exactly what was trained."
        if onto == "dequantised"
        else "The adapter was merged into the original weights of the base model, which are more precise than the "
        "4-bit weights used in training, so replies can differ from the chat."
    )
    kind = str(dtype).removeprefix("torch.")
    lines = f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".", dtype="auto", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained(".")

messages = [{{"role": "user", "content": {json.dumps(sample_prompt(source), ensure_ascii=False)}}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt.to(model.device), do_sample=False, max_new_tokens={NEW_TOKENS * 2})
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""
    return ModelCard(
        "a merged model",
        f"`{source.base_name}` with an adapter merged in: a whole model, in {kind}, trained with Nibble. {onto_what}",
        f"`pip install torch transformers accelerate`, then, in this folder:\n\n```python\n{lines}```",
        "transformers",
    )
