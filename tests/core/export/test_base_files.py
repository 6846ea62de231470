"""A merged model has all that its base's folder had: every tensor, and each file beside them that is no code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig

from core.export.merged.base_files import bring_along
from core.export.merged.read_back import read_back
from core.export.merged.weights import MergedWeights
from core.export.merged.write import planned, write_merged
from core.export.proof.verify import job
from core.export.proof_worker import compare
from core.export.shared.destination import Broken
from core.export.shared.source import ExportSource
from core.export.shared.tokenizer_files import write_companions
from core.system.hardware import device
from core.workspace import read_json, write_json
from tests.core.export.made import source_with_adapter
from tests.tiny import tiny_model

# What a model that sees images has besides, in dtypes that its language model has none of.
TOWER = {
    "vision_tower.blocks.0.weight": torch.linspace(-1, 1, 35, dtype=torch.float64).reshape(5, 7).float(),
    "vision_tower.position_ids": torch.arange(9),
    "vision_tower.mask": torch.tensor([True, False, True]),
    "multi_modal_projector.bias": torch.tensor([0.5, -3.25, 1e-3], dtype=torch.bfloat16),
}
OLD = "{{ 'the old template' }}"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """An adapter over a base that has a tower beside its language model, and many files beside its weights."""
    folder = tmp_path_factory.mktemp("seeing")
    base = tiny_model(folder / "base")
    weights = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    weights["model.norm.weight"] = weights["model.norm.weight"].float() + 1e-6  # kept in fp32, as some checkpoints do
    save_file({**weights, **TOWER}, base / "model.safetensors")
    write_json(base / "preprocessor_config.json", {"image_processor_type": "Seer", "do_rescale": True, "size": 336.0})
    write_json(
        base / "processor_config.json",
        {
            "processor_class": "Seer",
            "chat_template": OLD,
            "auto_map": {"AutoProcessor": "seer.Seer"},
            "at": str(folder),
        },
    )
    write_json(base / "chat_template.json", {"chat_template": OLD})
    (base / "LICENSE").write_text("All rights to the world.")
    (base / "NOTICE.txt").write_text("Noticed.")
    (base / "tokenizer.model").write_bytes(b"\x0a\x0b\x00pieces")
    (base / "README.md").write_text("About the base.")
    (base / "seer.py").write_text("raise SystemExit")
    for name in ("pytorch_model.bin", "old.pth", "consolidated.gguf", "model.safetensors.index.json"):
        (base / name).write_bytes(b"{}")
    (folder / "secret.txt").write_text("mine")
    (base / "link.txt").symlink_to(folder / "secret.txt")
    (base / "gone.json").symlink_to(folder / "nowhere")
    (base / "CONFIG.JSON").write_text("{}")
    (base / "a name\n.txt").write_text("odd")
    os.truncate(os.open(base / "huge.json", os.O_CREAT | os.O_RDWR), 60_000_000)
    (base / "assets").mkdir()
    made = source_with_adapter(folder, str(base))
    write_json(base / "special_tokens_map.json", {"eos_token": "<other>", "pad_token": "<other>"})  # than was trained
    return made


@pytest.fixture(scope="module")
def merged(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """It merged, and the line of its files."""
    out = tmp_path_factory.mktemp("merged")
    write_merged(source, MergedWeights(source, "dequantised", device()), out, torch.bfloat16, lambda line, share: None)
    return out, bring_along(source, out)


def test_every_tensor_of_the_base_is_there_and_bit_for_bit_where_nothing_changed_it(
    source: ExportSource, merged: tuple[Path, dict[str, Any]]
) -> None:
    base, out = (load_file(folder / "model.safetensors") for folder in (source.base_folder, merged[0]))
    assert set(out) == set(base)
    untouched = [name for name in base if "proj.weight" not in name]
    assert set(TOWER) < set(untouched) and "model.norm.weight" in untouched
    for name in untouched:
        assert out[name].dtype == base[name].dtype and torch.equal(out[name], base[name]), name
    assert not torch.equal(out["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])
    weights = MergedWeights(source, "dequantised", device())
    told = read_back(weights, planned(weights, torch.bfloat16), merged[0])
    assert told["equal"] == told["of"] == len(base)
    assert told["because"] == f"{len(untouched)} that were not changed are bit-identical"


def test_a_tensor_that_is_gone_or_spoilt_is_found(
    source: ExportSource, merged: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    weights, whole = MergedWeights(source, "dequantised", device()), load_file(merged[0] / "model.safetensors")
    for name, spoilt, message in (
        ("gone", {name: tensor for name, tensor in whole.items() if name != "vision_tower.mask"}, "lacks"),
        ("other", {**whole, "vision_tower.mask": ~whole["vision_tower.mask"]}, "contains"),
    ):
        (tmp_path / name).mkdir()
        save_file(spoilt, tmp_path / name / "model.safetensors")
        with pytest.raises(Broken, match=f"{message} vision_tower.mask"):
            read_back(weights, planned(weights, torch.bfloat16), tmp_path / name)


def test_a_wish_for_one_dtype_is_obeyed_in_all_that_the_model_loads(source: ExportSource) -> None:
    weights = MergedWeights(source, "dequantised", device())
    dtypes = {each.key: each.dtype for each in planned(weights, torch.float16, exact=False)}
    assert dtypes.pop("vision_tower.blocks.0.weight") == torch.float32, "what it does not load stays as it is"
    assert {dtypes[name] for name in dtypes if name.startswith("model.")} == {torch.float16}


def test_processors_vocabularies_and_licences_come_along_and_nothing_else(
    merged: tuple[Path, dict[str, Any]], source: ExportSource
) -> None:
    out, line = merged
    kept = {"LICENSE", "NOTICE.txt", "tokenizer.model", "preprocessor_config.json", "processor_config.json"}
    kept |= {"chat_template.json", "special_tokens_map.json"}
    own = {"config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in out.iterdir() if path.suffix != ".safetensors"} - {".merge.json"} == kept | own
    for name in ("LICENSE", "NOTICE.txt", "tokenizer.model", "preprocessor_config.json"):
        assert (out / name).read_bytes() == (source.base_folder / name).read_bytes(), name
    assert line["of"] == line["equal"] == len(kept)
    for left in ("seer.py (code)", "link.txt (a link to another place)", "gone.json (a link", "huge.json (too large)"):
        assert left in line["because"]
    assert "odd name" in line["because"] and "pytorch_model" not in line["because"]


def test_a_file_that_repeats_the_template_or_the_tokens_says_what_was_trained(
    merged: tuple[Path, dict[str, Any]], source: ExportSource
) -> None:
    out, _ = merged
    template = (out / "chat_template.jinja").read_text("utf-8")
    processor = read_json(out / "processor_config.json")
    assert read_json(out / "chat_template.json") == {"chat_template": template}
    assert processor == {"processor_class": "Seer", "chat_template": template, "at": source.base_folder.parent.name}
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert read_json(out / "special_tokens_map.json")["eos_token"] == "<|im_end|>"


def test_a_snapshot_in_hugging_faces_cache_is_made_of_links_to_its_own_contents(tmp_path: Path) -> None:
    """As huggingface_hub lays it out: snapshots/<commit>/<name> links to blobs/<etag>."""
    base = tiny_model(tmp_path / "models--org--name" / "snapshots" / "0123abc")
    blobs = base.parent.parent / "blobs"
    blobs.mkdir()
    (blobs / "e7a9").write_text("terms")
    (base / "LICENSE").symlink_to(Path("..", "..", "blobs", "e7a9"))
    (tmp_path / "secret").write_text("mine")
    (base / "NOTICE").symlink_to(tmp_path / "secret")
    source, out = source_with_adapter(tmp_path, str(base)), tmp_path / "out"
    out.mkdir()
    line = bring_along(source, out)
    assert [path.name for path in out.iterdir()] == ["LICENSE"] and not (out / "LICENSE").is_symlink()
    assert (out / "LICENSE").read_text() == "terms" and line[
        "because"
    ] == "left behind: NOTICE (a link to another place)"


def test_generation_settings_are_those_that_the_chat_obeys(source: ExportSource, tmp_path: Path) -> None:
    given = read_json(source.base_folder / "generation_config.json")
    search = {"num_beams": 10**6, "no_repeat_ngram_size": 2, "custom_generate": "x", "stop_strings": ["a"]}
    write_json(source.base_folder / "generation_config.json", {**given, **search, "repetition_penalty": 1.05})
    write_companions(source, tmp_path, torch.bfloat16)
    write_json(source.base_folder / "generation_config.json", given)
    settings = GenerationConfig.from_pretrained(tmp_path)
    assert settings.repetition_penalty == 1.05 and settings.eos_token_id == [given["eos_token_id"]]
    assert not search.keys() & json.loads((tmp_path / "generation_config.json").read_text("utf-8")).keys()


def test_a_model_that_sees_is_whole_after_its_language_was_merged(tmp_path: Path) -> None:
    """A small Gemma 3 as transformers itself makes it: its tower is neither quantised nor rounded on the way."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    from tests.tiny import SHAPES, tiny_tokenizer

    base, out = tmp_path / "base", tmp_path / "out"
    tokenizer = tiny_tokenizer(base)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {f"{name}_token_id": tokenizer.eos_token_id for name in ("bos", "eos", "pad")}
    text = {"vocab_size": 512, "num_key_value_heads": 4, "max_position_embeddings": 512, **SHAPES["gemma3_text"]}
    seen = {"image_size": 28, "patch_size": 14, **sizes}
    config = AutoConfig.for_model(
        "gemma3", text_config={**text, **sizes, **ends}, vision_config=seen, mm_tokens_per_image=4, image_token_index=5
    )
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).bfloat16().save_pretrained(base)
    write_json(base / "preprocessor_config.json", {"image_processor_type": "Gemma3ImageProcessor"})
    source = source_with_adapter(tmp_path, str(base), **{"lora.targets": ["up_proj", "down_proj"]})
    out.mkdir()
    weights = MergedWeights(source, "dequantised", device())
    write_merged(source, weights, out, torch.bfloat16, lambda line, share: None)
    bring_along(source, out)
    held, made = (load_file(folder / "model.safetensors") for folder in (base, out))
    assert set(held) == set(made)
    changed = {name for name in held if not torch.equal(held[name], made[name])}
    assert changed == {name for name in held if "language_model" in name and "proj.weight" in name}
    assert (out / "preprocessor_config.json").read_bytes() == (base / "preprocessor_config.json").read_bytes()
    _, loaded = AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True)
    assert not loaded["missing_keys"] and not loaded["unexpected_keys"]
    artefact = {"format": "merged", "folder": str(out), "parameters": 0}
    assert not compare(job(source, artefact, "dequantised", "bfloat16", most=3, new_tokens=8))["parted"]
