"""The adapter in PEFT's own format, with all that answering takes; nothing in it tells of this machine."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from core.export.card.model_card import ModelCard, sample_prompt
from core.export.proof.verify import NEW_TOKENS
from core.export.shared.names import is_on_hub, without_paths
from core.export.shared.source import ExportSource
from core.export.shared.tokenizer_files import write_generation_config, write_tokenizer
from core.system.compute_dtype import OVERFLOWING
from core.workspace import SCAN_SECONDS, patiently, write_json

WEIGHTS = "adapter_model.safetensors"
CARD_BYTES = 5_000_000


def write_adapter(source: ExportSource, folder: Path) -> None:
    """Write weights, configuration, tokenizer, template and generation config into `folder`; the card comes later."""
    shutil.copyfile(source.adapter / WEIGHTS, folder / WEIGHTS)
    config = whole_numbers(without_paths(source.adapter_config))
    config |= {"base_model_name_or_path": source.base_name, "revision": source.base.revision}
    write_json(folder / "adapter_config.json", config)
    write_tokenizer(source, folder)
    write_generation_config(source, folder)


def whole_numbers(config: dict[str, Any]) -> dict[str, Any]:
    """PEFT's settings with 8 for 8.0: a rank or an alpha is whole to programs that read numbers by their type.

    The share that is dropped out is none, and stays as it is.
    """
    return {key: value if key == "lora_dropout" else _whole(value) for key, value in config.items()}


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def adapter_bytes(source: ExportSource) -> int:
    """What the folder and its zip take on the disk, at most."""
    return 2 * source.adapter_bytes + CARD_BYTES


def zip_folder(folder: Path, target: Path) -> None:
    """Pack the files of `folder` into `target` under one folder of its name, in a fixed order and without their dates.

    Weights do not get smaller, so they are stored as they are. It is written beside and renamed.
    """
    beside = target.with_name(f".{target.name}.partial")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(f"{target.stem}/{file.relative_to(folder).as_posix()}")
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
                entry.file_size = file.stat().st_size
                with file.open("rb") as source, packed.open(entry, "w") as packing:
                    shutil.copyfileobj(source, packing, 2**20)
        patiently(lambda: beside.replace(target), SCAN_SECONDS)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def adapter_card(source: ExportSource) -> ModelCard:
    """The README's own part: what the folder is and the lines that make it answer a prompt of the run."""
    return ModelCard(
        "an adapter",
        f"A LoRA adapter for `{source.base_name}` in PEFT's format, trained with Nibble by QLoRA. It contains what "
        f"was learned, the tokenizer and the chat template; the base model is loaded separately."
        f"{_of_experts(source)}",
        f"{_where_the_base_is(source)}\n\n```python\n{_lines(source, sample_prompt(source))}```",
        "peft",
        ("lora", "peft"),
    )


def _of_experts(source: ExportSource) -> str:
    if not source.is_mixture or source.recipe.quantization.bits != 4:
        return ""
    return (
        " It was trained with the base's experts in 4 bits, as Nibble loads them. transformers by itself keeps them "
        "in 16 bits, which takes the memory of the whole model and can change replies slightly."
    )


def _where_the_base_is(source: ExportSource) -> str:
    needed = "`pip install torch transformers peft bitsandbytes`, then, in this folder:"
    if is_on_hub(source.base):
        return needed
    whose = "It comes with Nibble, as `presets/starter/model`." if source.base_name == "starter" else ""
    return (
        f"The base model `{source.base_name}` is a folder, not a model of the Hugging Face Hub. {whose} Put a copy "
        f"of it into this folder under that name, or name its place in the line `base = …`. {needed}"
    )


def _lines(source: ExportSource, question: str) -> str:
    base, revision = source.base_name, source.base.revision
    place = json.dumps(base if is_on_hub(source.base) else f"./{base}")
    at = f", revision={json.dumps(revision)}" if revision else ""
    return f"""\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

base = {place}
new_gpu = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
dtype = torch.bfloat16 if new_gpu else {_without_bf16(source)}
{_quantization(source)}
model = AutoModelForCausalLM.from_pretrained(
    base{at}, dtype=dtype, quantization_config=quantization, device_map="auto"
)
model = PeftModel.from_pretrained(model, ".").eval()
tokenizer = AutoTokenizer.from_pretrained(".")

messages = [{{"role": "user", "content": {json.dumps(question, ensure_ascii=False)}}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
settings = GenerationConfig.from_pretrained(".", do_sample=False, max_new_tokens={NEW_TOKENS * 2})
answer = model.generate(**prompt.to(model.device), generation_config=settings)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""


def _without_bf16(source: ExportSource) -> str:
    """The dtype to compute in on a device without bf16, as Python."""
    fast = "torch.float16 if torch.cuda.is_available() else torch.float32"
    return "torch.float32" if source.base.model_type in OVERFLOWING else fast


def _quantization(source: ExportSource) -> str:
    """The base in the bits that it was trained in, as a line of Python."""
    settings = source.recipe.quantization
    if settings.bits == 16:
        return "quantization = None"
    if settings.bits == 8:
        return "quantization = BitsAndBytesConfig(load_in_8bit=True)"
    return (
        f"quantization = BitsAndBytesConfig(\n    load_in_4bit=True, bnb_4bit_quant_type={json.dumps(settings.type)}, "
        f"bnb_4bit_use_double_quant={settings.double}, bnb_4bit_compute_dtype=dtype\n)"
    )
