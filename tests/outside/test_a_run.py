"""Two small runs done again by a plain loop: every loss, rate, gradient and weight, and what the adapter answers.

One trains the starter (tied embeddings, fp16 files) in packed micro-batches; the other a random model of odd shards in
bf16, padded, with DoRA and rsLoRA, over passes that end in the middle of a step. The bars are those of fp32's rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, get_scheduler

from tests.outside import plain
from tests.outside.cases import HELD_OUT, IN_FP32, STARTER, Case, apart, in_odd_shards, made
from tests.outside.command import Trained, ask

pytestmark = [IN_FP32, pytest.mark.full]
NATS = 1e-5
QUESTION = "how are you"


@dataclass(frozen=True)
class Started:
    """What the tests below look at, two at a time, as importing torch takes most of each command."""

    packed: Future[Case]
    padded: Future[Case]
    resumed: Future[Trained]
    answer: Future[Any]
    tokens: Future[Any]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Everything that is asked of Nibble here."""
    folder = tmp_path_factory.mktemp("outside")
    odd = in_odd_shards(folder / "base", "mistral", torch.bfloat16)
    of_packed = {"lora.targets": "all-linear", "train.schedule": "cosine", "train.weight_decay": 0.1}
    of_padded = {
        **{"train.effective_batch": 2, "train.micro_batch": 1, "train.packing": "off", "train.epochs": 1.6},
        **{"train.max_steps": None, "train.schedule": "linear", "lora.dora": True, "lora.scaling": "rank_stabilised"},
    }
    with ThreadPoolExecutor(2) as pool:
        packed = pool.submit(made, folder / "packed", STARTER, of_packed)
        padded = pool.submit(made, folder / "padded", odd, of_padded)
        resumed = pool.submit(lambda: _resumed(padded.result().run, folder / "resumed", 3))
        answer = pool.submit(lambda: _answered(packed.result().run))
        tokens = pool.submit(lambda: _tokens(packed.result(), row=6))
        yield Started(packed, padded, resumed, answer, tokens)


def _resumed(run: Trained, workspace: Path, step: int) -> Trained:
    """The run as if it had got no further than `step`, gone on with."""
    shutil.copytree(run.workspace, workspace)
    copied = workspace / run.dir.relative_to(run.workspace)
    for checkpoint in (copied / "checkpoints").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    answer = ask(workspace, "resume", run.id)
    assert answer["resumed_from_step"] == step
    return Trained(Path(answer["dir"]), workspace, answer)


def _answered(run: Trained) -> Any:
    return ask(run.workspace, "chat", run.id, "--prompt", QUESTION, "--greedy", "--max-new-tokens", "24")


def _tokens(case: Case, row: int) -> Any:
    data = case.run.workspace / "rows.jsonl"
    return ask(case.run.workspace, "data", "tokens", str(data), "--row", str(row), "--model", str(case.model))


@pytest.fixture(params=["packed", "padded"])
def case(started: Started, request: pytest.FixtureRequest) -> Case:
    """One of the two runs."""
    found: Case = getattr(started, request.param).result()
    return found


def test_a_row_is_cut_into_the_tokens_that_plain_transformers_sees(started: Started) -> None:
    told, expected = started.tokens.result(), started.packed.result().conversations[5]
    assert [token["id"] for token in told] == expected.ids
    assert [token["trained"] for token in told] == [weight > 0 for weight in expected.weights]
    assert [token.get("weight", float(token["trained"])) for token in told] == expected.weights
    assert {0.5, 1.0} < set(expected.weights), "one reply of the two counts half"


def test_a_step_was_split_as_asked(started: Started) -> None:
    packed, padded = started.packed.result(), started.padded.result()
    for run, micro_batch, accumulation in ((packed, 2, 4), (padded, 1, 2)):
        assert run.run.plan["chosen"]["micro_batch"] == micro_batch
        assert run.run.plan["chosen"]["accumulation"] == accumulation
    counted = {round(each.counted, 1) for each in packed.conversations}
    assert len(counted) > 6, "micro-batches of very different weight"
    assert [len(rows) for rows in packed.rows_of_steps] == [8] * 6
    passes = [row for rows in padded.rows_of_steps for row in rows]
    assert len(passes) == 14, "1.6 passes over 8 rows are 12.8, in steps of 2"
    assert sorted(passes[:8]) == [row for row in range(10) if row not in padded.held_out]


def test_the_first_steps_loss_is_the_mean_over_all_its_tokens_that_count(case: Case) -> None:
    """With B still zero that is the base's own loss, in four bits."""
    first = [case.conversations[row] for row in case.rows_of_steps[0]]
    assert case.run.steps[0]["loss"] == pytest.approx(plain.mean_loss(case.base(), first), abs=NATS)


def test_every_steps_loss_and_gradient_are_those_of_a_plain_loop(case: Case) -> None:
    told, again = case.run.steps, case.again.steps
    assert [step["loss"] for step in told] == pytest.approx([step.loss for step in again], abs=NATS)
    assert [step["grad_norm"] for step in told] == pytest.approx([step.grad_norm for step in again], rel=1e-5)
    assert told[-1]["loss"] < told[0]["loss"] - 0.1, "it has learned, so that a difference could grow"


def test_the_adapter_is_the_one_that_a_plain_loop_trains(case: Case) -> None:
    """AdamW divides by a gradient's size, so where that is nearly nothing rounding shows; on the whole it does not."""
    moved = apart(case.again.after, case.again.before)
    assert moved > 0.1
    assert apart(plain.adapter_in(case.run.dir / "adapter"), case.again.after) < 1e-3 * moved


def test_the_learning_rate_goes_as_transformers_has_it_go(case: Case) -> None:
    told = [step["lr"] for step in case.run.steps]
    assert told == pytest.approx(case.rates, abs=1e-12)
    total, highest = len(told), case.asked["train.learning_rate"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=highest)
    warmup = round(case.asked["train.warmup_ratio"] * total)
    schedule = get_scheduler(case.asked["train.schedule"], optimizer, warmup, total)
    expected = []
    for _ in range(total):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert told == pytest.approx(expected, abs=1e-12)


def test_the_held_out_loss_is_the_mean_over_the_tokens_of_rows_that_no_step_had(case: Case) -> None:
    told = case.run.held_out
    last = len(case.run.steps)
    middle, *more = set(told) - {0, last}
    assert not more and last in told
    assert len(case.held_out) == HELD_OUT
    assert told[0] == pytest.approx(case.loss_of_held_out(case.base()), abs=NATS)
    assert told[last] == pytest.approx(case.loss_of_held_out(case.again.model), abs=NATS)
    for step in (middle, last):
        adapted = case.adapted(case.run.dir / "checkpoints" / str(step) / "adapter")
        assert told[step] == pytest.approx(case.loss_of_held_out(adapted), abs=NATS)


def test_the_run_names_the_rows_that_it_holds_out(case: Case) -> None:
    named = json.loads((case.run.dir / "held_out.json").read_text("utf-8"))
    assert [row - 1 for row in named["rows"]] == case.held_out


def test_plain_peft_scales_the_adapter_as_the_formula_does(case: Case) -> None:
    """α / r for the one, and for the other α / √r on top of DoRA's magnitudes."""
    adapter = case.run.dir / "adapter"
    by_peft = PeftModel.from_pretrained(case.base(), str(adapter)).eval()
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"]) == (4, 16)
    assert config["use_rslora"] is config["use_dora"] is (case.scale == 8)
    with torch.no_grad():
        for row in case.held_out:
            ids = torch.tensor([case.conversations[row].ids])
            expected = case.adapted(adapter)(input_ids=ids).logits
            assert (expected - case.base()(input_ids=ids).logits).abs().max() > 0.1, "it says something of its own"
            assert torch.allclose(by_peft(input_ids=ids).logits, expected, rtol=1e-5, atol=1e-4)


def test_the_chat_answers_as_plain_peft_does_prompted_through_the_runs_own_template(started: Started) -> None:
    case = started.packed.result()
    tokenizer = AutoTokenizer.from_pretrained(case.run.dir / "adapter")
    model = PeftModel.from_pretrained(case.base(), str(case.run.dir / "adapter")).eval()
    messages = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    length = prompt["input_ids"].shape[1]
    answer = model.generate(**prompt, max_new_tokens=24, do_sample=False, eos_token_id=tokenizer.eos_token_id)[0]
    assert started.answer.result()["text"] == tokenizer.decode(answer[length:], skip_special_tokens=True).strip()


def test_a_run_that_is_resumed_is_bit_for_bit_the_one_that_never_ended(started: Started) -> None:
    whole, resumed = started.padded.result().run, started.resumed.result()

    def told(run: Trained) -> list[dict[str, Any]]:
        """What does not depend on how long it took."""
        timed = ("time", "tokens_per_second")
        return [{key: value for key, value in line.items() if key not in timed} for line in run.lines("metrics.jsonl")]

    assert told(resumed) == told(whole)
    one, other = plain.adapter_in(whole.dir / "adapter"), plain.adapter_in(resumed.dir / "adapter")
    assert apart(one, other) == 0


def test_four_bits_are_those_of_plain_transformers() -> None:
    """NF4 in blocks of 64, their constants in eight bits in blocks of 256: the base of every test above."""
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    loaded = AutoModelForCausalLM.from_pretrained(STARTER, quantization_config=four, dtype=torch.float32)
    files = load_file(STARTER / "model.safetensors")
    name = "model.layers.2.mlp.down_proj"
    held = loaded.get_submodule(name).weight
    assert (held.quant_state.blocksize, held.quant_state.state2.blocksize) == (64, 256)
    found = plain.dequantize_4bit(held.data, held.quant_state)
    assert torch.equal(found, plain.through_four_bits(files[f"{name}.weight"].float()))
    assert torch.equal(found, plain.base(STARTER).get_submodule(name).weight)
