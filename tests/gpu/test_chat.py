"""The chat on a card: what plain transformers and PEFT say there, adapters swapped, and what is said without room."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from core.chat import worker
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.model.lora_config import lora_config
from core.recipe import LoraSettings
from core.runs.chat_models import ChatModel, base_chat_model
from core.runs.device_lock import DeviceHeld
from core.system.hardware import device
from core.workspace import Workspace
from tests.gpu.machines import occupy, on, on_each
from tests.gpu_standin.install import figures
from tests.gpu_standin.machine import AMPERE, BLACKWELL, PASCAL, TURING, Card
from tests.tiny import tiny_model

ASK = [{"role": "user", "content": "hello there"}]
GREEDY = Sampling(max_new_tokens=8, greedy=True)
DTYPES = {PASCAL: torch.float16, TURING: torch.float16, AMPERE: torch.bfloat16, BLACKWELL: torch.bfloat16}


class Talk:
    """A chat as its process holds it, asked in this one."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.chat, self.number = workspace, worker.Chat(), 0

    def say(self, model: ChatModel, sampling: Sampling = GREEDY) -> list[int]:
        """The tokens of the reply to ASK. Raises NibbleError."""
        self.number += 1
        request = {"op": "say", "number": self.number, "workspace": str(self.workspace.path)}
        request |= {"chat_model": model.as_request(), "messages": ASK, "sampling": asdict(sampling)}
        return list([*self.chat.handle(request)][-1]["ids"])


@pytest.fixture
def talk(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Talk]:
    """A chat; afterwards the card is empty."""
    monkeypatch.setattr(worker, "trust_only", lambda workspace: None)  # it would count for all tests after
    opened = Talk(workspace)
    yield opened
    opened.chat._forget()


def plain_base(folder: Path, dtype: torch.dtype) -> Any:
    """The base in NF4 on the card, as transformers' documentation loads one."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=nf4, dtype=dtype, device_map={"": 0}).eval()


def plain_reply(model: Any, tokenizer: Any) -> list[int]:
    """What transformers' own `generate` says to ASK."""
    ids = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**ids.to("cuda"), max_new_tokens=8, do_sample=False, pad_token_id=0)
    return said[0, ids["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    """The tiny model's."""
    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny: Path, tokenizer: Any) -> list[Path]:
    """Two adapters over the tiny base, made by PEFT on the CPU, that say something of their own."""
    folders = []
    for seed, settings in enumerate((LoraSettings(rank=4, alpha=8), LoraSettings(rank=2, alpha=16, dora=True))):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(tiny)
        adapted = get_peft_model(base, lora_config(base, settings))
        for parameter in adapted.parameters():
            parameter.data += torch.randn_like(parameter) * 0.2 if parameter.requires_grad else 0
        folders.append(tmp_path_factory.mktemp("adapters") / f"of {seed}")
        adapted.save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    return folders


def over(tiny: Path, adapter: Path) -> ChatModel:
    """The chat model of `adapter`."""
    return replace(base_chat_model(str(tiny)), label=adapter.name, adapter=adapter, tokenizer=adapter)


@pytest.mark.parametrize("card", on_each(DTYPES, soon=(TURING, AMPERE)))
def test_it_says_what_transformers_and_peft_say_on_each_card(card, talk, tiny, adapters, tokenizer) -> None:
    dtype = DTYPES[card]
    expected = [plain_reply(plain_base(tiny, dtype), tokenizer)]
    for folder in adapters:
        expected.append(plain_reply(PeftModel.from_pretrained(plain_base(tiny, dtype), folder).eval(), tokenizer))
    assert len({tuple(each) for each in expected}) == 3
    base, first, second = base_chat_model(str(tiny)), *(over(tiny, folder) for folder in adapters)
    for model, said in ((base, 0), (first, 1), (second, 2), (base, 0), (second, 2), (first, 1)):
        assert talk.say(model) == expected[said], model.label
    assert {each.device.type for each in talk.chat._adapters.base.parameters()} == {"cuda"}


def test_two_chats_one_after_another_and_nothing_stays_on_the_card(talk, tiny, adapters) -> None:
    before = torch.cuda.memory_allocated()
    said = talk.say(over(tiny, adapters[0]))
    other = Talk(talk.workspace)
    with pytest.raises(DeviceHeld, match="The device is in use by the chat with “tiny”. End that first."):
        other.say(base_chat_model(str(tiny)))
    talk.chat._forget()
    assert torch.cuda.memory_allocated() - before <= 2 * 8_519_680  # cuBLAS' workspace, which stays
    assert other.say(over(tiny, adapters[0])) == said
    other.chat._forget()


ROOM = "is free on this device. Close other programs that use memory, or choose a smaller model."
FREE = 1500  # MiB, of which CUDA itself takes 450
SMALL = Card("small", (8, 6), 2048, driver_mib=2048 - FREE)


def taken() -> torch.Tensor:
    """All that is left of the card, by another program and, of what torch has reserved, by this tensor."""
    occupy(FREE)
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.empty(left, dtype=torch.uint8, device="cuda")


@on(SMALL)
def test_a_base_without_room_is_refused_before_it_is_loaded(talk, tiny) -> None:
    occupy(FREE)
    before = figures().allocations
    with pytest.raises(NibbleError, match=rf"tiny needs about \d+ MiB, and 0 MiB {ROOM}"):
        talk.say(base_chat_model(str(tiny)))
    assert figures().allocations == before and not talk.chat.is_over()


@on(SMALL)
def test_another_base_needs_no_second_context(talk, tiny, tmp_path) -> None:
    assert talk.say(base_chat_model(str(tiny)))
    occupy(device().free_bytes // 2**20 - 300)
    other = tiny_model(tmp_path / "other", "qwen2")
    assert talk.say(base_chat_model(str(other)))


@on(SMALL)
def test_memory_that_another_takes_while_a_base_is_loaded_is_said_and_the_process_ends(talk, tiny, monkeypatch) -> None:
    rest = []
    monkeypatch.setattr("core.chat.memory_check.refuse_without_room", lambda *_: rest.append(taken()))
    with pytest.raises(NibbleError, match=f"tiny needs more memory than this device has, and 0 MiB {ROOM}"):
        talk.say(base_chat_model(str(tiny)))
    assert talk.chat.is_over()


@on(SMALL)
def test_memory_that_runs_out_in_a_reply_is_said_and_the_next_reply_comes(talk, tiny) -> None:
    said = talk.say(base_chat_model(str(tiny)))
    rest = taken()
    with pytest.raises(NibbleError, match=f"needs more memory than this device has, and 0 MiB {ROOM}"):
        talk.say(base_chat_model(str(tiny)))
    del rest
    assert talk.say(base_chat_model(str(tiny))) == said
