"""What the person reads of a library's error is the line that holds the fact: the file, the tensor, the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ModelError
from core.text.library_errors import MOST, ended_by_bitsandbytes, telling_line, telling_line_of

Q = "model.layers.0.self_attn.q_proj.weight"


def _load_base(folder: Path) -> None:
    from core.basemodel.find import find_model
    from core.model.load import load_base
    from core.recipe import QuantizationSettings
    from core.system.hardware import Device

    load_base(find_model(str(folder)), QuantizationSettings(bits=16), Device("cpu", "CPU", 2**34, 2**33))


def _load_tokenizer(folder: Path) -> None:
    from core.basemodel.find import find_model
    from core.model.load import load_tokenizer

    load_tokenizer(find_model(str(folder)))


def _config(folder: Path, **values: Any) -> None:
    _json(folder / "config.json", lambda config: config.update(values))


def _json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def _weights(folder: Path, **instead: list[int]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file) | {name: torch.zeros(shape) for name, shape in instead.items()}
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "facts"),
    [
        (lambda at: _weights(at, **{Q: [8, 64]}), [Q, "8 × 64", "64 × 64"]),
        (lambda at: _config(at, model_type="llama9"), ["llama9"]),
        (lambda at: _config(at, hidden_act="newact"), ["newact", "hidden_act"]),
        (lambda at: _config(at, rope_parameters={"rope_type": "new", "factor": 8.0}), ["'new'", "rope"]),
        (lambda at: _config(at, num_attention_heads=5), ["hidden size (64)", "attention heads (5)"]),
        (lambda at: (at / "model.safetensors").write_bytes(b"\x10" * 200), ["model.safetensors", "damaged"]),
        (
            lambda at: (at / "model.safetensors").write_bytes((at / "model.safetensors").read_bytes()[:2000]),
            ["model.safetensors", "damaged"],
        ),
    ],
)
def test_a_base_that_cannot_be_loaded_is_refused_with_the_fact(
    tiny: Path, tmp_path: Path, spoil: Callable[[Path], Any], facts: list[str]
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(tiny, folder)
    spoil(folder)
    with pytest.raises(ModelError) as refused:
        _load_base(folder)
    for fact in facts:
        assert fact in str(refused.value)
    assert str(tmp_path) not in str(refused.value), "where it lies on this machine is nobody's business"


@pytest.mark.parametrize(
    ("spoil", "facts"),
    [
        (
            lambda at: _json(at / "tokenizer.json", lambda each: each["model"].update(type="BPE9")),
            ["tokenizer.json contains a Model", "package tokenizers does not know"],
        ),
        (
            lambda at: _json(at / "tokenizer.json", lambda each: each.update(pre_tokenizer={"type": "New"})),
            ["tokenizer.json contains a PreTokenizer", "package tokenizers does not know"],
        ),
        (lambda at: (at / "tokenizer.json").write_text("{cut"), ["tokenizer.json is damaged"]),
        (lambda at: (at / "tokenizer.json").unlink(), ["no readable tokenizer.json", "sentencepiece", "not installed"]),
        (
            lambda at: ((at / "tokenizer.json").unlink(), (at / "tokenizer.model").write_bytes(b"abc")),
            ["requires the package sentencepiece, which is not installed"],
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_refused_with_the_fact(
    tiny: Path, tmp_path: Path, spoil: Callable[[Path], Any], facts: list[str]
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(tiny, folder)
    spoil(folder)
    if (folder / "tokenizer.model").exists():
        _json(folder / "tokenizer_config.json", lambda each: each.update(tokenizer_class="LlamaTokenizer"))
    with pytest.raises(ModelError) as refused:
        _load_tokenizer(folder)
    for fact in facts:
        assert fact in str(refused.value)


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as raised:
        return raised


def test_pefts_mismatch_is_told_by_its_tensor_and_shapes(tiny: Path) -> None:
    """torch's own message, as PEFT lets it through: a heading, then a line for each tensor."""
    import torch

    layer = torch.nn.Linear(8, 4)
    with pytest.raises(RuntimeError) as raised:
        layer.load_state_dict({"weight": torch.zeros(5, 8), "bias": torch.zeros(3)})
    said = telling_line(raised.value)
    assert said.startswith("size mismatch for weight: ") and "(5, 8)" in said and "(4, 8)" in said
    assert said.endswith("(and 1 more)")
    with pytest.raises(RuntimeError) as raised:
        layer.load_state_dict({"weight": torch.zeros(4, 8)})
    assert telling_line(raised.value) == 'Missing key(s) in state_dict: "bias"'


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("qwen9"), "KeyError: 'qwen9'"),
        (
            Exception("data did not match any variant of untagged enum PyPreTokenizerTypeWrapper at line 960 column 3"),
            "tokenizer.json contains a PreTokenizer that the installed package tokenizers does not know",
        ),
        (
            KeyError("Missing required keys in `rope_parameters`: {'factor'}"),
            "Missing required keys in `rope_parameters`",
        ),
        (
            ImportError(
                "\nTimmWrapperModel requires the timm library but it was not found. You can install it:\n`pip`"
            ),
            "TimmWrapperModel requires the timm library",
        ),
        (ValueError(), "ValueError"),
        (ImportError("\nmamba-ssm is required by the Mamba model but cannot be imported"), "mamba-ssm is required"),
        (
            RuntimeError(
                "Failed to import x.y because of the following error (look up to see its traceback):\nNo module"
            ),
            "No module",
        ),
        (
            ImportError("Using `low_memory` requires Accelerate\n`pip install accelerate`"),
            "Using `low_memory` requires Accelerate",
        ),
        (
            OSError(
                "Could not load model. See the original errors:\n\nwhile loading with AutoModel, an error is thrown:\n"
                'Traceback (most recent call last):\n  File "/a/b.py", line 3, in f\n    go()\nOSError: no file c.bin'
            ),
            "no file c.bin",
        ),
        (_raised(RuntimeError("An error occurred:"), ValueError("layer 3 has 5 heads")), "layer 3 has 5 heads"),
        (
            ValueError("Target module LlamaAttention(\n  (q): Linear(a=1)\n  (k): L()\n) is not supported. Only x."),
            "Target module LlamaAttention(…) is not supported. Only x",
        ),
        (RuntimeError("\x1b[31mbad\x1b[0m weights"), "bad weights"),
        (OSError("no file in /home/anna/models/secret project/x.bin or C:\\Users\\anna\\y.bin"), "x.bin or y.bin"),
        (OSError("401 for https://anna:pw@hub.test/x?sig=abc with Bearer hf_abcdefghijklmnop"), "https://hub.test/x?…"),
    ],
)
def test_of_what_is_said_around_it_nothing_is_told(error: BaseException, said: str) -> None:
    told = telling_line(error)
    assert said in told and "\n" not in told
    for secret in ("anna", "pw@", "sig=", "hf_abc", "\x1b"):
        assert secret not in told


@settings(deadline=10_000, max_examples=200)
@given(st.text(st.sampled_from("aZ0 /\\:.(\n\t\x1b[m|'\"é_-=@?"), max_size=300), st.integers(1, 5_000))
def test_whatever_is_said_one_short_line_is_told_in_no_time(text: str, times: int) -> None:
    for told in (telling_line(ValueError(text * times)), telling_line_of(text * times, "nothing")):
        assert 0 < len(told) <= MOST and "\n" not in told and "\x1b" not in told


def test_it_is_never_long() -> None:
    assert len(telling_line(ValueError("x" * 9999))) == MOST
    loop = ValueError("An error occurred")
    loop.__cause__ = loop
    assert telling_line(loop) == "ValueError: An error occurred"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            'noise\nTraceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n'
            "RuntimeError: CUDA error: no kernel image is available\nCUDA kernel errors might be reported elsewhere.\n"
            "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n",
            "RuntimeError: CUDA error: no kernel image is available",
        ),
        (
            'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    import numpy\n'
            "ImportError: \n\nIMPORTANT: PLEASE READ THIS FOR ADVICE:\n\n"
            "Original error was: libopenblas.so.0: cannot open shared object file\n",
            "libopenblas.so.0: cannot open shared object file",
        ),
        ("Killed\n", "Killed"),
        ("", "nothing"),
    ],
)
def test_of_a_process_the_error_is_told_and_not_its_last_line(output: str, said: str) -> None:
    assert said in telling_line_of(output, "nothing")


@pytest.mark.parametrize("file", sorted(Path(bitsandbytes.__file__).parent.glob("libbitsandbytes_cuda1*")), ids=str)
def test_what_bitsandbytes_says_before_it_ends_a_process_is_known(file: Path) -> None:
    """The format is in the library that ships, as C's printf takes it."""
    said = b"Error %s at line %d in file %s\n"
    assert said in file.read_bytes()
    told = said.decode() % ("operation not supported", 557, "/src/csrc/pythonInterface.cpp")
    assert ended_by_bitsandbytes(f"a step\n{told}") == "operation not supported"
    assert ended_by_bitsandbytes(f"{told}another thread's line\n") == "operation not supported"
    assert ended_by_bitsandbytes(told + "a line\n" * 30) is None  # it was not the end


@pytest.mark.parametrize(
    "output", ["", "Error at line 3 in file my.jsonl\n", "ValueError: Error x at line 1 in file y\n"]
)
def test_other_errors_are_not_bitsandbytes(output: str) -> None:
    assert ended_by_bitsandbytes(output) is None


def test_a_recipe_that_is_no_yaml_is_refused_with_the_line_and_the_fault(tmp_path: Path) -> None:
    from core.errors import RecipeError
    from core.recipe import load_recipe

    file = tmp_path / "r.yaml"
    file.write_text("model: starter\ndata: [1\n")
    with pytest.raises(RecipeError, match=r"r.yaml is not readable YAML: line 3: expected ',' or '\]'"):
        load_recipe(str(file))
