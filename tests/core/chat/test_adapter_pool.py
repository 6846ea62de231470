"""Every adapter answers in the chat as plain PEFT has it alone over a fresh base, whatever was loaded before it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.peft_types import PeftType
from safetensors.torch import load_file, save_file

from core.basemodel.find import find_model
from core.chat.adapter_pool import AdapterLost, Adapters
from core.errors import ModelError, NibbleError
from core.export.import_adapter import import_adapter
from core.untrusted.adapter_files import KNOWN
from core.workspace import Workspace
from tests.core.untrusted.seen_patterns import HOSTILE, PUBLISHED
from tests.tiny import tiny_model

IDS = torch.tensor([[5, 6, 7, 20, 30, 5, 41, 6]])
# What adapters can be, in PEFT's own terms, by the architecture that shows it.
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "plain": {},
        "tokens": {"trainable_token_indices": [5, 6]},
        "tokens the base model does not have": {
            "trainable_token_indices": {"embed_tokens": [7]},
            "modules_to_save": ["lm_head"],
        },
        "dora": {"use_dora": True, "use_rslora": True, "lora_bias": False},
        "embeddings": {"modules_to_save": ["embed_tokens"]},
        "on embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
        "a module": {"modules_to_save": ["mlp"]},
        "within it": {"target_modules": ["up_proj"], "lora_bias": True},
    },
    "tied": {
        "plain": {},
        "tokens": {"trainable_token_indices": [5, 6]},
        "embeddings": {"modules_to_save": ["embed_tokens"]},
        "head": {"modules_to_save": ["lm_head"]},
        "both": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    },
    "qwen2": {  # its attention has biases
        "plain": {},
        "biases": {"bias": "all", "use_dora": True},
        "own biases": {"bias": "lora_only"},
        "tokens": {"trainable_token_indices": [5, 6]},
    },
    "qwen3_moe": {
        "plain": {},
        "experts": {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
        "half": {"target_parameters": ["experts.gate_up_proj"]},
    },
}


def _base(folder: Path, bits: int = 16) -> Any:
    from core.model.load import load_base
    from core.recipe import QuantizationSettings
    from core.system.hardware import Device

    device = Device("cpu", "CPU", 2**34, 2**33)
    return load_base(find_model(str(folder)), QuantizationSettings(bits=bits), device).eval()


def _make(base: Path, folder: Path, seed: int = 0, **settings: Any) -> Path:
    """An adapter as PEFT saves it, that says something of its own."""
    usual: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    adapted = get_peft_model(_base(base), LoraConfig(**(usual | settings)))
    torch.manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.2
    adapted.save_pretrained(folder)
    return folder


def _model(folder: Path, kind: str) -> Path:
    tiny_model(folder, "llama" if kind == "tied" else kind)
    if kind == "tied":
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    return folder


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(("kind", "bits"), [*((kind, 16) for kind in KINDS), ("llama", 4), ("qwen3_moe", 4)])
def test_each_is_as_it_is_alone_whichever_was_loaded_before(kind: str, bits: int, tmp_path: Path) -> None:
    base = _model(tmp_path / kind, kind)
    folders: dict[str | None, Path | None] = {None: None}
    expected = {None: _logits(_base(base, bits))}
    for seed, (name, settings) in enumerate(KINDS[kind].items()):
        if name == "a module" and bits == 4:
            continue  # a packed module cannot be brought
        folders[name] = _make(base, tmp_path / name, seed, **settings)
        expected[name] = _logits(PeftModel.from_pretrained(_base(base, bits), folders[name]).eval())
    assert len({tuple(each.flatten().tolist()) for each in expected.values()}) == len(expected)
    over = Adapters(_base(base, bits), find_model(str(base)))
    for pair in itertools.permutations(folders, 2):  # one after another, so that each meets all that came before
        for name in (*pair, pair[0]):
            assert torch.allclose(_logits(over.use(folders[name])), expected[name], atol=1e-5), (name, "of", pair)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("qwen3_moe", {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
    ],
)
def test_alike_ones_are_swapped_and_let_go_without_a_trace(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    base = _model(tmp_path / kind, kind)
    folders = [_make(base, tmp_path / f"{seed}", seed, **settings) for seed in range(3)]
    expected = [_logits(PeftModel.from_pretrained(_base(base), folder).eval()) for folder in folders]
    alone = _logits(_base(base))
    for most_held in (1, 2, 3):
        over = Adapters(_base(base), find_model(str(base)), most_held)
        for each in (0, 1, 2, 0, None, 2, 1, 1, None, 0):
            wanted = alone if each is None else expected[each]
            assert torch.allclose(_logits(over.use(None if each is None else folders[each])), wanted, atol=1e-5)


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_a_pattern_means_in_chat_what_plain_peft_takes_it_to_mean(pattern: str, tiny: Path, tmp_path: Path) -> None:
    settings = {"target_modules": pattern, "rank_pattern": {r".*layers\.1(?=\.).*": 2}}
    folder = _make(tiny, tmp_path / "theirs", **settings)
    made = import_adapter(Workspace.open(tmp_path / "workspace"), folder, base=str(tiny))
    plain = PeftModel.from_pretrained(_base(tiny), folder).eval()
    over = Adapters(_base(tiny), find_model(str(tiny))).use(made)
    assert over.base_model.targeted_module_names == plain.base_model.targeted_module_names
    assert torch.equal(_logits(over), _logits(plain))


@pytest.mark.parametrize("pattern", HOSTILE[:3])
def test_a_pattern_without_end_is_refused_at_import_and_in_chat_alike(pattern: str, tiny: Path, tmp_path: Path) -> None:
    folder = _make(tiny, tmp_path / "theirs")
    _say(folder, target_modules=pattern)
    with pytest.raises(NibbleError) as at_import:
        import_adapter(Workspace.open(tmp_path / "workspace"), folder, base=str(tiny))
    with pytest.raises(NibbleError) as in_chat:
        Adapters(_base(tiny), find_model(str(tiny))).use(folder)
    assert str(at_import.value) == str(in_chat.value)
    assert "takes too long to match (target_modules)" in str(in_chat.value)


def _say(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


REFUSED: list[tuple[dict[str, Any], str]] = [
    *(({"peft_type": kind.value}, f"of the kind {kind.value}, which ") for kind in PeftType if kind != PeftType.LORA),
    ({"peft_type": None}, "not in PEFT's format"),
    ({"task_type": "SEQ_CLS"}, "is for SEQ_CLS, not for chat"),
    ({"init_lora_weights": "pissa_niter_4"}, "changes its base model (init_lora_weights pissa_niter_4)"),
    ({"init_lora_weights": "loftq"}, "changes its base model"),
    ({"layer_replication": [[0, 2], [1, 2]]}, "changes its base model"),
    ({"kasa_config": {"beta": 0.1}}, "changes its base model"),
    ({"alora_invocation_tokens": [5]}, "is of aLoRA, which works only after certain tokens"),
    ({"use_qalora": True}, "QA-LoRA"),
    ({"trainable_token_indices": 5}, "are no lists"),
    ({"trainable_token_indices": {"embed_tokens": 5}}, "are no lists"),
    ({"trainable_token_indices": [-1]}, "says trainable_token_indices -1"),
    ({"layers_to_transform": [10**12]}, "says layers_to_transform"),
    ({"peft_version": "99.0.0", "use_qlora2": True}, "made by PEFT 99.0.0 and says use_qlora2"),
]


def test_what_cannot_be_laid_over_a_base_is_refused_by_name_and_reason_at_import_and_in_chat_alike(
    tiny: Path, tmp_path: Path
) -> None:
    over = Adapters(_base(tiny), find_model(str(tiny)))
    plain = _make(tiny, tmp_path / "plain")
    for number, (values, said) in enumerate(REFUSED):
        folder = tmp_path / f"{number}" / "theirs"
        shutil.copytree(plain, folder)
        _say(folder, **values)
        with pytest.raises(NibbleError) as at_import:
            import_adapter(Workspace.open(tmp_path / "workspace"), folder, base=str(tiny))
        with pytest.raises(NibbleError) as in_chat:
            over.use(folder)
        assert said in str(in_chat.value) and str(at_import.value) == str(in_chat.value)
    assert over.use(plain) is not None


def test_what_other_tools_note_beside_pefts_settings_does_no_harm(tiny: Path, tmp_path: Path) -> None:
    """ms-swift 2 noted its own learning rates, and no version of PEFT."""
    folder = _make(tiny, tmp_path / "theirs")
    _say(folder, lora_dtype="AUTO", lorap_emb_lr=1e-06, peft_version=None)
    assert Adapters(_base(tiny), find_model(str(tiny))).use(folder) is not None


def test_pefts_settings_are_all_known() -> None:
    import dataclasses

    assert {field.name for field in dataclasses.fields(LoraConfig)} == KNOWN


def test_an_adapter_with_embeddings_of_another_size_says_so(tiny: Path, tmp_path: Path) -> None:
    folder = _make(tiny, tmp_path / "theirs", modules_to_save=["embed_tokens"])
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    key = next(key for key in weights if "embed_tokens" in key)
    save_file(weights | {key: torch.zeros(520, 64)}, file)
    with pytest.raises(ModelError, match=r"model.embed_tokens.weight of shape \(520, 64\), and tiny has \(512, 64\)"):
        Adapters(_base(tiny), find_model(str(tiny))).use(folder)


def test_an_adapter_of_a_token_that_the_base_lacks_says_so(tiny: Path, tmp_path: Path) -> None:
    folder = _make(tiny, tmp_path / "theirs", trainable_token_indices=[5, 6])
    for odd in ([5, 512], {"embed_tokens": [512, 1]}):
        _say(folder, trainable_token_indices=odd)
        with pytest.raises(
            ModelError, match="trains token 512, and tiny has 512: it was trained with tokens the base model"
        ):
            Adapters(_base(tiny), find_model(str(tiny))).use(folder)


def test_an_adapter_that_brings_what_the_base_holds_packed_says_so(tiny: Path, tmp_path: Path) -> None:
    folder = _make(tiny, tmp_path / "theirs", modules_to_save=["mlp"])
    with pytest.raises(ModelError, match="has its own model.layers.0.mlp.*holds in 4 or 8 bits"):
        Adapters(_base(tiny, bits=4), find_model(str(tiny))).use(folder)


def test_weights_of_the_base_that_a_file_writes_over_are_the_bases_again_for_others(tiny: Path, tmp_path: Path) -> None:
    """PEFT's `save_embedding_layers` puts the whole embeddings into the file, and loading them changes the base."""
    folder = _make(tiny, tmp_path / "theirs")
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.model.embed_tokens.weight": torch.randn(512, 64)}, file)
    over, alone = Adapters(_base(tiny), find_model(str(tiny))), _logits(_base(tiny))
    plain = _logits(PeftModel.from_pretrained(_base(tiny), folder).eval())
    assert torch.equal(_logits(over.use(folder)), plain) and not torch.equal(plain, alone)
    assert torch.equal(_logits(over.use(None)), alone)


def test_what_pefts_loading_says_is_told_by_its_telling_line(tiny: Path, tmp_path: Path) -> None:
    folder = _make(tiny, tmp_path / "theirs")
    _say(folder, r=8)
    with pytest.raises(AdapterLost, match=r"size mismatch for .*q_proj.lora_A.* \(4, 64\) .* \(8, 64\)"):
        Adapters(_base(tiny), find_model(str(tiny))).use(folder)
    _say(folder, r=4, target_modules=["nothing"])
    with pytest.raises(AdapterLost, match="Target modules {'nothing'} not found"):
        Adapters(_base(tiny), find_model(str(tiny))).use(folder)
    _say(folder, target_modules=["q_proj", "v_proj"], trainable_token_indices=[5])
    with pytest.raises(AdapterLost, match="token_adapter.trainable_tokens_delta"):
        Adapters(_base(tiny), find_model(str(tiny))).use(folder)
