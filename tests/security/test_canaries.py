"""Models and adapters of strangers: nothing of them is run, and a person is told in one sentence why not."""

from __future__ import annotations

import contextlib
import importlib
import json
import pickle
import runpy
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.basemodel.code_consent import CodeNotAgreed, agree, code_of, require_agreed, trust_only
from core.basemodel.find import find_model
from core.errors import NibbleError
from core.export.import_adapter import import_adapter
from core.recipe import make_recipe
from core.workspace import Workspace
from tests.security.canaries import HARMLESS, PICKLES, REFUSED, change, copy_of, own_code, pickled, program
from tests.tiny import chat_rows, tiny_model, write_jsonl


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with nothing wrong."""
    return tiny_model(tmp_path_factory.mktemp("good") / "tiny")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty one, whose agreements count."""
    made = Workspace.open(tmp_path / "workspace")
    trust_only(made)
    yield made
    trust_only(Workspace.open(None))


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that must not appear, neither there nor where programs run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something of a stranger's was run"


def plan(workspace: Workspace, model: Path) -> None:
    """As `plan` does."""
    from core.memory.estimate import make_plan

    make_plan(_recipe(workspace, model), workspace)


def check(workspace: Workspace, model: Path) -> None:
    """As the Train tab has it checked, in the helper."""
    from core.preflight.process import _Work

    (answer,) = _Work().handle(
        {"op": "check", "workspace": str(workspace.path), "recipe": _recipe(workspace, model).model_dump()}
    )
    for error in answer["errors"]:
        raise NibbleError(error["message"])
    (answer,) = _Work().handle(
        {"op": "preview", "workspace": str(workspace.path), "recipe": _recipe(workspace, model).model_dump()}
    )


def train(workspace: Workspace, model: Path) -> None:
    """As a run does: what is refused before it is made, and what its process loads."""
    from core.data.rendering.template import require_template
    from core.launch.submit import prepare
    from core.model.load import load_base, load_tokenizer
    from core.system.hardware import device
    from core.train.base_model import have_base

    recipe = _recipe(workspace, model)
    run = prepare(recipe, workspace)
    found = have_base(run, run.recipe())
    require_template(load_tokenizer(found), recipe.data)
    base = load_base(found, recipe.quantization, device())
    assert base.generation_config.num_beams in (None, 1)


def chat(workspace: Workspace, model: Path) -> None:
    """As the chat's process does."""
    from core.runs.chat_models import base_chat_model

    _say(workspace, base_chat_model(str(model)).as_request())


def _say(workspace: Workspace, voice: dict[str, Any]) -> str:
    from core.chat.worker import Chat

    request = {"op": "say", "number": 1, "chat_model": voice, "workspace": str(workspace.path)}
    request |= {"messages": [{"role": "user", "content": "hello"}], "sampling": {"max_new_tokens": 4}}
    talking = Chat()
    try:
        *_, last = talking.handle(request)
    finally:
        talking._forget()
    return str(last["text"])


def _recipe(workspace: Workspace, model: Path) -> Any:
    rows = write_jsonl(workspace.path.parent / "rows.jsonl", chat_rows(20))
    values = {"model": str(model), "data.path": str(rows), "data.max_length": 64, "train.max_steps": 1}
    return make_recipe({**values, "train.epochs": None, "train.effective_batch": 2})


WAYS: dict[str, Callable[[Workspace, Path], None]] = {"plan": plan, "check": check, "train": train, "chat": chat}


def test_the_canaries_are_real(tmp_path: Path) -> None:
    file, canary = tmp_path / "evil.py", tmp_path / "canary"
    file.write_text(program(canary))
    runpy.run_path(str(file))
    assert canary.exists()
    canary.unlink()
    pickle.loads(pickled(canary))
    assert canary.exists()


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_do_harm_is_refused_in_one_sentence(
    name: str, tiny: Path, workspace: Workspace, canary: Path
) -> None:
    spoil, words = REFUSED[name]
    model = copy_of(tiny, workspace.path / "models" / "theirs")
    spoil(model, canary)
    with pytest.raises(NibbleError) as refused:
        train(workspace, model)
    said = str(refused.value)
    assert words in said
    assert len(said) < 500 and "\n" not in said and "Traceback" not in said


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_every_way_in_refuses_it(name: str, way: str, tiny: Path, workspace: Workspace, canary: Path) -> None:
    spoil, _ = REFUSED[name]
    model = copy_of(tiny, workspace.path / "models" / "theirs")
    spoil(model, canary)
    if way in ("plan", "check") and ("template" in name or "tokenizer" in name):
        with contextlib.suppress(NibbleError):  # the data's lengths may be assumed where they cannot be counted
            WAYS[way](workspace, model)
        return
    with pytest.raises(NibbleError):
        WAYS[way](workspace, model)


@pytest.mark.parametrize(
    "way", ["train", *(pytest.param(way, marks=pytest.mark.full) for way in ("plan", "check", "chat"))]
)
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_not_needed_is_never_touched(
    name: str, way: str, tiny: Path, workspace: Workspace, canary: Path
) -> None:
    model = copy_of(tiny, workspace.path / "models" / "theirs")
    HARMLESS[name](model, canary)
    WAYS[way](workspace, model)


def _adapter(folder: Path, **values: Any) -> Path:
    """An adapter of the starter as PEFT writes it, with `values` in its settings."""
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "starter", "r": 4}
    change(folder / "adapter_config.json", **settings, target_modules=["model.layers.0.self_attn.q_proj"], **values)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    sides = find_model("starter").config["hidden_size"]
    weights = {f"{layer}.lora_A.weight": np.ones((4, sides), np.float32)}
    save_file(
        {**weights, f"{layer}.lora_B.weight": np.zeros((sides, 4), np.float32)}, folder / "adapter_model.safetensors"
    )
    return folder


def _talk(workspace: Workspace, folder: Path) -> str:
    from core.runs.chat_models import find_chat_model

    return _say(workspace, find_chat_model(workspace, f"adapter:{folder}").as_request())


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "another program": ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "asks to load other software"),
    "another program, quietly": ({"megatron_core": "os"}, "asks to load other software"),
    "a pattern without end": ({"target_modules": "(a+)+$"}, "takes too long to match"),
    "many patterns": ({"target_modules": ".*a.*a.*a.*a.*a.*a.*b"}, "takes too long to match"),
    "a pattern to leave out": ({"exclude_modules": "(.*)*x"}, "takes too long to match"),
    "a pattern that is none": ({"target_modules": "(("}, "by an invalid pattern"),
    "a pattern of ranks": ({"rank_pattern": {"(a|a)*b": 4}}, "takes too long to match"),
    "a rank without end": ({"r": 10**12}, "allowed: 1 to"),
    "a rank that is a word": ({"r": "many"}, "allowed: 1 to"),
    "copies of layers": ({"layer_replication": [[0, 10**9]]}, "changes its base model"),
    "another kind": ({"peft_type": "PROMPT_TUNING"}, "is of the kind"),
    "a base elsewhere": ({"base_model_name_or_path": "https://evil.example/model"}, "There is no model"),
    "a base on another machine": ({"base_model_name_or_path": "//evil.example/share"}, "There is no model"),
    "a base at a strange commit": (
        {"base_model_name_or_path": "org/base", "revision": "../../x"},
        "is not one of its commits",
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_would_do_harm_is_refused(name: str, workspace: Workspace, canary: Path) -> None:
    from core.chat.adapter_fit import Bare, refuse_adapter

    values, words = ADAPTERS[name]
    folder = _adapter(workspace.path / "theirs")
    change(folder / "adapter_config.json", **values)
    with pytest.raises(NibbleError, match=words):
        if "base" in name:
            _talk(workspace, folder)
        refuse_adapter(folder, Bare({}, {}), find_model("starter"))


@pytest.mark.full
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_chat_refuses_it_in_good_time(name: str, workspace: Workspace, canary: Path) -> None:
    values, words = ADAPTERS[name]
    folder = _adapter(workspace.path / "theirs")
    change(folder / "adapter_config.json", **values)
    began = time.monotonic()
    with pytest.raises(NibbleError, match=words):
        _talk(workspace, folder)
    assert time.monotonic() - began < 20


def test_an_adapter_talks_whatever_lies_beside_it(workspace: Workspace, canary: Path) -> None:
    folder = _adapter(workspace.path / "theirs", auto_mapping={"parent_library": "evil", "base_model_class": "Evil"})
    (folder / "evil.py").write_text(program(canary))
    for name in PICKLES:
        (folder / name).write_bytes(pickled(canary))
    assert _talk(workspace, folder)
    taken = import_adapter(workspace, folder, "taken")
    assert not {file.suffix for file in taken.iterdir()} & {".bin", ".pt", ".pth", ".pkl", ".py"}
    assert json.loads((taken / "adapter_config.json").read_text())["auto_mapping"] is None


def test_an_adapter_of_pickles_is_refused(workspace: Workspace, canary: Path) -> None:
    from core.model.load import load_adapter

    folder = _adapter(workspace.path / "theirs")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickled(canary))
    for way in (_talk, import_adapter):
        with pytest.raises(NibbleError, match="only pickled weights"):
            way(workspace, folder)
    with pytest.raises(NibbleError, match="no adapter_model.safetensors"):
        load_adapter(None, folder)  # type: ignore[arg-type]


def test_a_zip_of_pickles_links_or_bombs_is_refused(workspace: Workspace, canary: Path, tmp_path: Path) -> None:
    good = _adapter(tmp_path / "good")
    files = {path.name: path.read_bytes() for path in good.iterdir()}
    link = zipfile.ZipInfo("adapter_model.safetensors")
    link.external_attr = 0o120777 << 16
    for extra, words in (
        ({"adapter_model.safetensors": None, "adapter_model.bin": pickled(canary)}, "pickled"),
        ({"readme.md": b"0" * 50_000_000}, "not unpacked"),
        ({"../evil.py": program(canary).encode()}, "not unpacked"),
        ({"adapter_model.safetensors": None, link: b"/etc/passwd"}, "link"),
    ):
        with zipfile.ZipFile(tmp_path / "theirs.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in {**files, **extra}.items():
                if content is not None:
                    packed.writestr(name, content)
        with pytest.raises(NibbleError, match=words):
            import_adapter(workspace, tmp_path / "theirs.zip", "theirs")
    assert not list(workspace.adapters.iterdir())


def _own(tiny: Path, folder: Path, canary: Path) -> Path:
    model = copy_of(tiny, folder)
    own_code(model, program(canary))
    return model


def _run_it(workspace: Workspace, model: Path) -> Any:
    from core.model.load import load_base, load_tokenizer
    from core.system.hardware import device

    found = find_model(str(model))
    load_tokenizer(found)
    return load_base(found, make_recipe({}).quantization, device())


def test_code_runs_only_where_exactly_it_was_agreed_to(tiny: Path, workspace: Workspace, tmp_path: Path) -> None:
    canary, model = tmp_path / "canary", workspace.path / "models" / "theirs"
    _own(tiny, model, canary)
    code = code_of(find_model(str(model)))
    assert code is not None and [file.name for file in code.files] == ["configuration_own.py", "modeling_own.py"]
    with pytest.raises(CodeNotAgreed):
        _run_it(workspace, model)
    assert not canary.exists()
    agree(workspace, code)
    assert type(_run_it(workspace, model)).__name__ == "OwnForCausalLM"
    assert canary.exists()
    plan(workspace, model)
    train(workspace, model)


def test_files_that_changed_are_asked_about_anew(tiny: Path, workspace: Workspace, canary: Path) -> None:
    model = workspace.path / "models" / "theirs"
    _own(tiny, model, canary)

    def agreed() -> bool:
        try:
            return require_agreed(workspace, find_model(str(model))) is not None
        except CodeNotAgreed:
            return False

    def agree_now() -> None:
        code = code_of(find_model(str(model)))
        assert code is not None
        agree(workspace, code)
        assert agreed()

    agree_now()
    with (model / "modeling_own.py").open("a") as file:
        file.write("# one more line\n")
    assert not agreed()
    agree_now()
    (model / "more.py").write_text(program(canary))
    assert not agreed()
    (model / "more.py").unlink()
    assert agreed()
    change(model / "config.json", auto_map={"AutoConfig": "a.B", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"})
    assert not agreed()
    agree_now()
    moved = model.with_name("moved")
    shutil.copytree(model, moved)
    with pytest.raises(CodeNotAgreed):
        require_agreed(workspace, find_model(str(moved)))
    code = code_of(find_model(str(model)))
    assert code is not None
    kept = workspace.state / "trust" / code.digest / "modeling_own.py"
    kept.write_text(program(canary))  # what would be run is no longer what was shown
    assert not agreed()
    agree_now()
    shutil.rmtree(workspace.state / "trust" / code.digest)
    assert not agreed()


def test_a_link_to_code_elsewhere_is_refused(tiny: Path, workspace: Workspace, canary: Path, tmp_path: Path) -> None:
    model = _own(tiny, workspace.path / "models" / "theirs", canary)
    (tmp_path / "elsewhere.py").write_text(program(canary))
    (model / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(NibbleError, match="is a link to another place"):
        code_of(find_model(str(model)))


def test_the_command_line_agrees_for_one_named_model(
    tiny: Path, workspace: Workspace, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from core.cli.main import main

    model = _own(tiny, workspace.path / "models" / "theirs", canary)
    asked = ["plan", "quickstart", "--set", f"model={model}", "--data-dir", str(workspace.path), "--json"]
    assert main(asked) == 1
    assert "comes with Python code" in json.loads(capsys.readouterr().out)["error"]
    assert main([*asked, "--agree-to-code", "starter"]) == 1
    assert "names starter, but the model is" in json.loads(capsys.readouterr().out)["error"]
    (model / "configuration_own.py").write_text("import evil_that_is_not_there\n")
    assert main([*asked, "--agree-to-code", str(model)]) == 1
    said = capsys.readouterr()
    assert "does not run with the installed transformers" in json.loads(said.out)["error"]
    assert "configuration_own.py" in said.err and "with all your rights" in said.err


def test_a_checkpoint_that_was_planted_is_never_unpickled(workspace: Workspace, canary: Path, tmp_path: Path) -> None:
    from core.train.checkpoints import load_state

    for name in ("random.pt", "optimizer.pt", "scheduler.pt", "scaler.pt"):
        (tmp_path / name).write_bytes(pickled(canary))
    with pytest.raises(NibbleError, match="not made by Nibble"):
        load_state(tmp_path / "random.pt")


def test_no_process_of_ours_fetches_programs_or_tells_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.system.process import child_environment

    for name in ("TRUST_REMOTE_CODE", "HF_DATASETS_TRUST_REMOTE_CODE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("USE_HUB_KERNELS", "YES")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    environment = child_environment()
    assert not [name for name in environment if "TRUST_REMOTE_CODE" in name]
    assert environment["USE_HUB_KERNELS"] == "NO" and environment["HF_HUB_DISABLE_TELEMETRY"] == "1"
    with pytest.raises(ImportError):
        importlib.import_module("kernels")


@pytest.mark.full
def test_the_libraries_are_told_so_before_they_look() -> None:
    from core.system.process import child_environment

    environment = child_environment()
    script = (
        "import core.model.load, huggingface_hub.constants as hub, transformers.integrations.hub_kernels as kernels;"
        "from transformers.utils.import_utils import is_kernels_available as there;"
        "assert hub.HF_HUB_DISABLE_TELEMETRY and not kernels._kernels_enabled and not there();"
        "import kernels"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "import of kernels halted" in done.stderr, done.stderr[-500:]


@pytest.mark.full
def test_code_from_the_hub_runs_at_the_commit_that_was_agreed_to(tiny: Path, tmp_path: Path) -> None:
    from core.system.process import child_environment
    from tests.hub import COMMIT, stand_in_hub

    canary, rows = tmp_path / "canary", write_jsonl(tmp_path / "rows.jsonl", chat_rows(20))
    model = _own(tiny, tmp_path / "own", canary)
    sets = ["model=org/own", f"data.path={rows}", "train.max_steps=1", "data.max_length=64"]
    command = ["train", "quickstart", "--json", "--data-dir", str(tmp_path / "workspace")]
    command += [part for each in sets for part in ("--set", each)]

    def called(url: str, *more: str) -> subprocess.CompletedProcess[str]:
        ours = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [sys.executable, "-m", "core.cli", *command, *more],
            env={**child_environment(), **ours},
            capture_output=True,
            text=True,
            check=False,
        )

    with stand_in_hub({"org/own": model}) as hub:
        refused = called(hub.url)
        assert "comes with Python code" in json.loads(refused.stdout)["error"]
        assert not canary.exists()
        agreed = called(hub.url, "--agree-to-code", "org/own")
        assert json.loads(agreed.stdout)["state"] == "finished", agreed.stderr[-2000:]
        assert f"org/own at commit {COMMIT[:7]}" in agreed.stderr
        assert canary.exists()
    again = called("http://127.0.0.1:9")
    assert json.loads(again.stdout)["state"] == "finished", again.stderr[-2000:]
