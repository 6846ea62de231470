"""Remakes the starter from scratch: the tokenizer, then the model. `python presets/starter/build.py`

Seeded, and resumable from its own checkpoints. On two cores the whole training takes about an hour and a
half; `--steps 600` gives a rough one. A file named `decay` in the checkpoint folder, holding a number of
steps, makes a running training fall to a learning rate of zero within that many steps and end.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from presets.starter.corpus import conversations  # noqa: E402

VOCABULARY = 2560
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
CHAPTER = 10_000
"""Conversations in a chapter of the corpus; chapter n is seeded with n."""


def build_tokenizer(folder: Path) -> None:
    """Byte-level BPE with GPT-2's pre-tokeniser, trained on the words in vocabulary.txt, as often as it says.

    They were counted in the corpus once. The file keeps the tokenizer as it is when the corpus changes.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    counted = (line.split(" ", 1) for line in (HERE / "vocabulary.txt").read_text().splitlines())
    core.train_from_iterator((json.loads(word) for count, word in counted for _ in range(int(count))), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = (HERE / "chat_template.jinja").read_text()
    tokenizer.save_pretrained(folder)


def new_model(seed: int) -> LlamaForCausalLM:
    """4.9 million parameters; every dimension is a multiple of 256."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|pad|>"),
    )
    return LlamaForCausalLM(config)


def batches(tokenizer: PreTrainedTokenizerFast, chapter: int, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The chapter in shuffled batches of similar lengths: ids and labels, each [conversations, length].

    A batch holds at most `tokens` positions. Only replies are labels; the rest is -100.
    """
    made = tokenizer.apply_chat_template(
        list(itertools.islice(conversations(seed=chapter, practice=True), CHAPTER)),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    rows = list(zip(made["input_ids"], made["assistant_masks"], strict=True))
    rng = random.Random(chapter)
    rng.shuffle(rows)
    rows.sort(key=lambda row: len(row[0]))
    cuts, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end - start + 1) * len(rows[end][0]) > tokens:
            cuts.append(rows[start:end])
            start = end
    rng.shuffle(cuts)
    for cut in cuts:
        longest = max(len(ids) for ids, _ in cut)
        ids = torch.full((len(cut), longest), SPECIAL.index("<|pad|>"))
        labels = torch.full((len(cut), longest), -100)
        for i, (row, mask) in enumerate(cut):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, : len(row)] = torch.tensor([t if m else -100 for t, m in zip(row, mask, strict=True)])
        yield ids, labels


def reply_loss(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the labelled tokens. The head runs on those positions only."""
    hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted])


def optimizers(model: LlamaForCausalLM, muon: bool) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    if muon:
        return [
            torch.optim.Muon(matrices, lr=0.01, weight_decay=0.05, momentum=0.95, adjust_lr_fn="original"),
            torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
    return [torch.optim.AdamW(matrices + others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True)]


class Schedule:
    """Warm up, stay, fall: the share of the learning rate at each step. The fall can be brought forward."""

    def __init__(self, steps: int, fall: int, warm: int = 60) -> None:
        self.end, self.fall, self.warm = steps, fall, warm

    def share(self, step: int) -> float:
        return max(0.0, min((step + 1) / self.warm, (self.end - step) / self.fall, 1.0))

    def look_for_request(self, request: Path, step: int) -> None:
        if request.exists():
            self.fall = int(request.read_text())
            self.end = step + self.fall
            request.unlink()


def train(work: Path, steps: int, fall: int, tokens: int, muon: bool, every_seconds: float) -> LlamaForCausalLM:
    """Train until the schedule ends, from the checkpoint in `work` if there is one."""
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    model = new_model(seed=0)
    optims = optimizers(model, muon)
    rates = [group["lr"] for o in optims for group in o.param_groups]
    schedule, step, chapter, skip = Schedule(steps, fall), 0, 1, 0
    if (work / "state.pt").exists():
        state = torch.load(work / "state.pt", weights_only=True)
        step, chapter, skip = state["step"], state["chapter"], state["done"]
        schedule.end, schedule.fall = max(schedule.end, state["end"]), state["fall"]
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
    last_save = last_word = time.monotonic()
    seen, running = 0, 0.0
    for chapter in itertools.count(chapter):  # noqa: B020
        for done, (ids, labels) in enumerate(batches(tokenizer, chapter, tokens)):
            if done < skip:
                continue
            share = schedule.share(step)
            groups = [group for o in optims for group in o.param_groups]
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * share
            loss = reply_loss(model, ids, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optim in optims:
                optim.step()
                optim.zero_grad()
            step, seen, running = step + 1, seen + ids.numel(), running + loss.item()
            if step % 50 == 0:
                took = time.monotonic() - last_word
                print(
                    f"step {step} of {schedule.end}  chapter {chapter}  loss {running / 50:.4f}  "
                    f"rate {share:.3f}  {seen / took:.0f} tokens/s",
                    flush=True,
                )
                seen, running, last_word = 0, 0.0, time.monotonic()
            schedule.look_for_request(work / "decay", step)
            if step >= schedule.end or time.monotonic() - last_save > every_seconds:
                state = {
                    "step": step,
                    "chapter": chapter,
                    "done": done + 1,
                    "end": schedule.end,
                    "fall": schedule.fall,
                    "model": model.state_dict(),
                    "optims": [o.state_dict() for o in optims],
                }
                torch.save(state, work / "state.new")
                (work / "state.new").replace(work / "state.pt")
                last_save = time.monotonic()
            if step >= schedule.end:
                return model
        skip = 0
    raise AssertionError("the chapters never end")


def write_model(model: LlamaForCausalLM, work: Path, folder: Path) -> None:
    """Save what ships: float16 weights, the tokenizer with its template, and the generation config."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for path in (work / "tokenizer").iterdir():
        shutil.copy(path, folder / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where checkpoints go")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    parser.add_argument("--steps", type=int, default=2150)
    parser.add_argument("--fall", type=int, default=600, help="the last steps, with a falling learning rate")
    parser.add_argument("--tokens", type=int, default=6144, help="positions in a batch")
    parser.add_argument("--save-seconds", type=float, default=180)
    parser.add_argument("--adamw", action="store_true", help="AdamW for everything, instead of Muon for matrices")
    parser.add_argument("--snapshot", action="store_true", help="only write the model of the last checkpoint")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "tokenizer").exists():
        build_tokenizer(args.work / "tokenizer")
    if args.snapshot:
        model = new_model(seed=0)
        model.load_state_dict(torch.load(args.work / "state.pt", weights_only=True)["model"])
    else:
        model = train(args.work, args.steps, args.fall, args.tokens, not args.adamw, args.save_seconds)
    write_model(model, args.work, args.out)


if __name__ == "__main__":
    main()
