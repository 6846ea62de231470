"""Models and adapters that would do harm when loaded: whatever of them is run leaves a file behind, the canary."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Every file beside safetensors that some loader would unpickle.
PICKLES = (
    "pytorch_model.bin",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "random.pt",
    "model.pkl",
    "tokenizer.pkl",
    "vocab.pkl",
    "model.pt",
    "consolidated.00.pth",
)


class Bomb:
    """Runs a program when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (program(self.canary),)


def program(canary: Path) -> str:
    """Python that leaves the canary."""
    return f"open({str(canary)!r}, 'w').write('run')\n"


def pickled(canary: Path) -> bytes:
    """A pickle that leaves the canary, in the plain form that every unpickler takes."""
    return pickle.dumps(Bomb(canary))


def copy_of(model: Path, folder: Path) -> Path:
    """A model to be spoilt."""
    shutil.copytree(model, folder)
    return folder


def change(file: Path, **values: Any) -> None:
    """Lay `values` over the JSON in `file`, which need not be there."""
    now = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**now, **values}), "utf-8")


def _pickles_only(folder: Path, canary: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))


def _index_of_pickles(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))
    (folder / "other.safetensors").write_bytes(pickled(canary))
    change(folder / "model.safetensors.index.json", weight_map={"a": "pytorch_model.bin"})


def _disguised(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickled(canary))


def _own_code(folder: Path, canary: Path) -> None:
    own_code(folder, program(canary))


def own_code(folder: Path, begin: str) -> None:
    """Make a Llama one of a kind of its own, with code that is a Llama's; `begin` is what its files begin with."""
    (folder / "configuration_own.py").write_text(
        f"{begin}from transformers import LlamaConfig\n\n\nclass OwnConfig(LlamaConfig):\n    model_type = 'own-kind'\n"
    )
    (folder / "modeling_own.py").write_text(
        f"{begin}from transformers import LlamaForCausalLM\n\nfrom .configuration_own import OwnConfig\n\n\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    own = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    change(folder / "config.json", model_type="own-kind", architectures=["OwnForCausalLM"], auto_map=own)


def _adapter_within(folder: Path, canary: Path) -> None:
    change(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="/tmp/elsewhere", r=4)
    (folder / "adapter_model.bin").write_bytes(pickled(canary))


def _elsewhere(folder: Path, canary: Path) -> None:
    _own_code(folder, canary)
    own = {name: f"org/other--{name}.{name}" for name in ("AutoConfig", "AutoModelForCausalLM")}
    change(folder / "config.json", auto_map=own)


def _config(**values: Any) -> Callable[[Path, Path], None]:
    return lambda folder, canary: change(folder / "config.json", **values)


def _tokenizer(**values: Any) -> Callable[[Path, Path], None]:
    return lambda folder, canary: change(folder / "tokenizer_config.json", **values)


def _text(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda folder, canary: (folder / name).write_text(text) and None


# What is refused, each with the words that say so.
REFUSED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "pickled weights": (_pickles_only, "only pickled weights"),
    "an index of pickled weights": (_index_of_pickles, "as a weight file, which is not a valid name"),
    "a pickle called safetensors": (_disguised, "cannot be read"),
    "code of its own": (_own_code, "comes with Python code"),
    "code in another repository": (_elsewhere, "loads code from another repository"),
    "an adapter within": (_adapter_within, "contains an adapter next to the model"),
    "an unknown kind": (_config(model_type="no-such-kind"), "is not known here"),
    "a kind that is a path": (_config(model_type="../../os"), "in its config.json is not a name"),
    "a kind that is a list": (_config(model_type=["llama"]), "in its config.json is not a name"),
    "attention from a hub": (_config(attn_implementation="evil/kernel"), "asks for code to be downloaded"),
    "attention from a hub, within": (
        _config(_attn_implementation_internal="kernels-community/flash-attn@v1:run"),
        "asks for code to be downloaded",
    ),
    "experts from a hub": (_config(experts_implementation="evil/experts"), "asks for code to be downloaded"),
    "kernels": (_config(use_kernels=True), "asks for code to be downloaded"),
    "deep attention from a hub": (_config(text_config={"attn_implementation": "evil/kernel"}), "asks for code to be"),
    "quantised": (_config(quantization_config={"quant_method": "gptq"}), "is already quantised"),
    "quantised in no known way": (_config(quantization_config={"load_in_4bit": True}), "is already quantised"),
    "quantised with a list": (_config(quantization_config=["awq"]), "is already quantised"),
    "quantised within": (_config(text_config={"quantization_config": {"quant_method": "fp8"}}), "is already quantised"),
    "compressed": (_config(compression_config={"format": "dense"}), "is already quantised"),
    "a billion layers": (_config(num_hidden_layers=10**9), "which is not a valid value"),
    "a huge width": (_config(hidden_size=10**12), "which is not a valid value"),
    "a number without end": (
        _text("config.json", '{"model_type": "llama", "a": 1' + "0" * 5000 + "}"),
        "is not valid JSON",
    ),
    "layers that are words": (_config(num_hidden_layers="many"), "which is not a valid value"),
    "far more than its files": (_config(num_hidden_layers=1500, intermediate_size=10**7), "far larger than its files"),
    "a text_config that is a list": (_config(text_config=[1]), "which is not a valid value"),
    "nested without end": (_text("config.json", "[" * 100_000), "is not valid JSON"),
    "nested deep": (
        _text("config.json", '{"model_type": "llama", "a": ' + "[" * 500 + "]" * 500 + "}"),
        "nested too deeply",
    ),
    "a dtype that is a function": (_config(dtype="load"), "which is not a valid value"),
    "a tokenizer that is a model": (
        _tokenizer(tokenizer_class="AutoModelForCausalLM"),
        "as its tokenizer, which is not valid",
    ),
    "a tokenizer that is a function": (_tokenizer(tokenizer_class="pipeline"), "as its tokenizer, which is not valid"),
    "a tokenizer of itself": (_tokenizer(tokenizer_class="AutoTokenizer"), "as its tokenizer, which is not valid"),
    "a tokenizer's file elsewhere": (
        _tokenizer(fast_tokenizer_files=["../../secret.json"]),
        "names files outside its folder",
    ),
    "a tokenizer's first arguments": (_tokenizer(init_inputs=["/etc/passwd"]), "names files outside its folder"),
    "a tokenizer nested without end": (_text("tokenizer_config.json", "[" * 100_000), "is not valid JSON"),
    "a template that escapes": (
        _text("chat_template.jinja", "{{ cycler.__init__.__globals__.os.system('touch canary') }}"),
        "chat template",
    ),
    "a template without end": (
        _text("chat_template.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        "chat template",
    ),
    "a template that writes without end": (
        _text("chat_template.jinja", "{% for a in messages %}{{ a['content'] * 10**10 }}{% endfor %}"),
        "chat template",
    ),
}


def _known_with_code(folder: Path, canary: Path) -> None:
    own = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoModel", "AutoTokenizer"), "evil.Evil")
    (folder / "evil.py").write_text(program(canary))
    change(folder / "config.json", auto_map=own)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        change(folder / name, auto_map={"AutoProcessor": "evil.Evil", "AutoImageProcessor": "evil.Evil"})


def _custom_generate(folder: Path, canary: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(program(canary))
    change(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)


def _search_without_end(folder: Path, canary: Path) -> None:
    search = {"num_beams": 10**9, "num_return_sequences": 10**9, "num_beam_groups": 4, "dola_layers": "low"}
    change(folder / "generation_config.json", **search, eos_token_id="abc", stop_strings=["a"], min_length=10**9)


def _pickles_beside(folder: Path, canary: Path) -> None:
    for name in PICKLES:
        (folder / name).write_bytes(pickled(canary))


def _scripts_beside(folder: Path, canary: Path) -> None:
    for name in ("setup.py", "conftest.py", "sitecustomize.py", "__init__.py", "dataset.py", "handler.py"):
        (folder / name).write_text(program(canary))


# What is loaded all the same, for the harm in it is never touched.
HARMLESS: dict[str, Callable[[Path, Path], None]] = {
    "code for a kind that is known": _known_with_code,
    "generation of its own": _custom_generate,
    "a search without end": _search_without_end,
    "pickles beside the weights": _pickles_beside,
    "programs beside the weights": _scripts_beside,
}
