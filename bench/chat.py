"""The chat against a bare `generate` loop: tokens per second, the first token, and what adapters cost in memory.

Both answer the same prompts greedily on the same base in NF4. They take turns for several rounds, and the figure is
the median of the rounds' ratios, so other load on the machine slows both. The first round warms up and does not
count. The chat is asked through its own process, as the app does it. The bare loop runs in a thread, as the chat's
does: in the main thread, glibc returns the memory of every product at once, which made the loop 4 times slower.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.chat.client import ChatClient
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel, base_chat_model
from core.workspace import Workspace

ROUNDS = 7
TOKENS = 96
MODEL = "starter"
RANK = 16
ASK = [{"role": "user", "content": "Tell me a story about a cat who goes to the market and meets a dog."}]
_thread = ThreadPoolExecutor(max_workers=1)
SPEED_BAR, FIRST_BAR, MEMORY_BAR = 0.95, 1.1, 1.02


def main(seed: int = 0, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them. `seed` draws the adapters' weights."""
    with tempfile.TemporaryDirectory() as folder:
        base = _base()
        adapters = _adapters(base, Path(folder), seed)
        rows = [_memory(adapters)]
        client = ChatClient(Workspace.open(folder))
        try:
            alone = base_chat_model(MODEL)
            over = replace(alone, label="adapter", adapter=adapters[0], tokenizer=adapters[0])
            rows += _speed("base alone", client, alone, _base(), rounds)
            rows += _speed("with an adapter", client, over, _plain_peft(adapters[0]), rounds)
        finally:
            client.close()
    return rows


def _speed(what: str, client: ChatClient, model: ChatModel, plain: Any, count: int) -> list[dict[str, Any]]:
    """Ratios of the chat to plain `generate` on `plain`, which must produce the very same tokens."""
    rounds = []
    for _ in range(count + 1):
        bare, first, ids = _thread.submit(_bare, plain).result()
        reply = [*client.stream(model, ASK, Sampling(max_new_tokens=TOKENS, greedy=True))][-1]
        if list(reply.ids) != ids:
            raise RuntimeError(f"{what}: the chat does not say what plain generate says.")
        rounds.append((reply.tokens_per_second, bare, reply.first_token_seconds, first))
    ours, theirs, firsts, their_first = (list(column) for column in zip(*rounds[1:], strict=True))
    speed = statistics.median(mine / bare for mine, bare in zip(ours, theirs, strict=True))
    wait = statistics.median(mine / bare for mine, bare in zip(firsts, their_first, strict=True))
    return [
        _row(f"{what}: tokens per second", statistics.median(ours), "tokens/s", statistics.median(theirs)),
        _row(f"{what}: speed against bare generate", speed, "times", 1.0, SPEED_BAR, speed >= SPEED_BAR),
        _row(f"{what}: first token against bare generate", wait, "times", 1.0, FIRST_BAR, wait <= FIRST_BAR),
    ]


def _memory(adapters: list[Path]) -> dict[str, Any]:
    """Bytes of all tensors with a base and three adapters loaded, against the sum of their own sizes."""
    from core.basemodel.find import find_model
    from core.chat.adapter_pool import Adapters

    over = Adapters(_base(), find_model(MODEL))
    base_bytes = held_bytes(over.base)
    for folder in adapters:
        over.use(folder)
    own = base_bytes + sum(_own_bytes(folder) for folder in adapters)
    held = held_bytes(over.base)
    what = "base and three adapters against their own bytes"
    return _row(what, held / own, "times", 1.0, MEMORY_BAR, held <= MEMORY_BAR * own)


def _row(
    name: str, value: float, unit: str, reference: float, bar: float | None = None, holds: bool | None = None
) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def _base() -> Any:
    from core.basemodel.find import find_model
    from core.model.load import load_base
    from core.recipe import QuantizationSettings
    from core.system.hardware import device

    return load_base(find_model(MODEL), QuantizationSettings(), device()).eval()


def _plain_peft(folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(_base(), folder)


def _adapters(base: Any, folder: Path, seed: int) -> list[Path]:
    """Three adapters with random weights, saved with the tokenizer as a run does."""
    import torch

    from core.basemodel.find import find_model
    from core.model.load import attach_lora, load_tokenizer
    from core.recipe import LoraSettings

    adapted = attach_lora(base, LoraSettings(rank=RANK, alpha=RANK), torch.float32)
    tokenizer = load_tokenizer(find_model(MODEL))
    torch.manual_seed(seed)
    made = []
    for name in ("one", "two", "three"):
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.02)
        adapted.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        made.append(folder / name)
    return made


def _bare(model: Any) -> tuple[float, float, list[int]]:
    """(tokens per second, seconds to the first token, the tokens) of plain `generate`, timed from the messages on."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    from core.basemodel.find import find_model
    from core.model.load import load_tokenizer

    tokenizer = load_tokenizer(find_model(MODEL))
    seen: list[float] = []

    class Clock(StoppingCriteria):
        """Records when each token comes."""

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            seen.append(time.perf_counter())
            return torch.zeros(1, dtype=torch.bool, device=input_ids.device)

    started = time.perf_counter()
    encoded = tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = encoded["input_ids"].to(model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=encoded["attention_mask"].to(model.device),
        do_sample=False,
        max_new_tokens=TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        stopping_criteria=StoppingCriteriaList([Clock()]),
    )
    said = output[0, ids.shape[1] :].tolist()
    return len(said) / (time.perf_counter() - started), seen[0] - started, said


def held_bytes(model: Any) -> int:
    """Bytes of everything that a model holds: parameters, buffers and quantisation constants, each counted once."""
    from bitsandbytes.nn import Linear4bit

    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            nested = [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
            tensors += [state.absmax, state.code, *nested]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())


def _own_bytes(folder: Path) -> int:
    """Bytes of an adapter's tensors in its file. PEFT holds 16-bit ones in 32 bits, and so does the reference."""
    from safetensors.torch import load_file

    return sum(each.numel() * 4 for each in load_file(folder / "adapter_model.safetensors").values())
