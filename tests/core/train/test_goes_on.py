"""A run goes on where memory runs out, and loses nothing where the loss is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from core.basemodel.find import find_model
from core.data.batches import MicroBatches, data_order
from core.data.rendering.render import Rendered
from core.memory.strategy import Strategy
from core.model.load import attach_lora, load_base, load_tokenizer
from core.recipe import LoraSettings, QuantizationSettings, make_recipe
from core.runs.manifest import BEST, is_valid
from core.runs.store import Run
from core.system.hardware import Device
from core.train.best_adapter import Best, keep_best, perplexity, put_back
from core.train.evaluation import Evaluator
from core.train.oom_retry import OomFallback, OutOfRoom, Shortage, asked_bytes, attempt, more_frugal
from core.train.parallel import ALONE
from core.train.rows import Rows
from core.train.trainer import NibbleTrainer, Outcome
from core.train.trl_config import trainer_config
from core.train.watcher import Watcher, named

STEPS, BATCH, ROWS = 5, 4, 12
NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB. GPU 0 has a total capacity …")


class _Losses(TrainerCallback):
    """Keeps what transformers logs, and the rate that each step was taken at."""

    def __init__(self) -> None:
        self.all: list[float] = []
        self.rates: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs:
            self.all.append(self.trainer.outcome.loss)
            self.rates.append(logs["learning_rate"])
            assert math.isfinite(logs["loss"])


def _conversations() -> list[Rendered]:
    """Twelve of different lengths, from row 101 on."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(6, 30, (ROWS,), generator=generator).tolist()
    ids = [torch.randint(3, 300, (length,), generator=generator).tolist() for length in lengths]
    return [
        Rendered(row, each, [at > 2 for at in range(len(each))], len(each)) for row, each in enumerate(ids, start=101)
    ]


def _trainer(
    tiny: Path, folder: Path, way: Strategy, dropout: float = 0.0
) -> tuple[NibbleTrainer, _Losses, list[Strategy]]:
    """A trainer of five steps over twelve conversations, its losses, and the ways that it goes down to."""
    torch.manual_seed(0)
    base = load_base(find_model(str(tiny)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33))
    model = attach_lora(base, LoraSettings(rank=4, alpha=8, dropout=dropout), torch.float32)
    settings = {"train.effective_batch": BATCH, "train.learning_rate": 0.02, "train.optimizer": "adamw"}
    recipe = make_recipe({"model": str(tiny), **settings, "lora.dropout": dropout})
    order = data_order(ROWS, STEPS, BATCH, seed=0)
    batches = MicroBatches(_conversations(), order, way.micro_batch, packed=True)
    config = trainer_config(recipe, folder, "cpu", torch.float32, STEPS, way)
    losses, ways = _Losses(), []
    fallback = OomFallback(way, BATCH, lambda before, now, shortage: ways.append(now), "mps")
    tokenizer = load_tokenizer(find_model(str(tiny)))
    trainer = NibbleTrainer(model, tokenizer, batches, config, losses, way.checkpointing, fallback)
    losses.trainer = trainer
    return trainer, losses, ways


def _weights(trainer: NibbleTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def _fails_when(trainer: NibbleTrainer, no_room: Callable[[int, int, torch.Tensor], bool]) -> None:
    """Memory runs out in the backward pass of every micro-batch of which `no_room(step, number, labels)` says so.

    It does so in mid-way: the last layer's gradient has been accumulated by then, the first one's has not.
    """
    compute, count = trainer.summed_loss, {"step": -1, "number": 0}
    first = next(p for name, p in trainer.model.named_parameters() if "layers.0" in name and p.requires_grad)
    failing = {"now": False}

    def watched(inputs: Any) -> torch.Tensor:
        step = trainer.state.global_step
        count["number"] = count["number"] + 1 if count["step"] == step else 1
        count["step"] = step
        failing["now"] = no_room(step, count["number"], inputs["labels"])
        return compute(inputs)

    def give_up(parameter: torch.Tensor) -> None:
        if failing["now"]:
            raise NO_ROOM

    trainer.summed_loss = watched  # type: ignore[method-assign]
    first.register_post_accumulate_grad_hook(give_up)


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test's run has put into force is not to be renewed here."""
    monkeypatch.setattr("core.train.memory_limit._budget_bytes", None)


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], torch.Tensor]:
    """The losses and the final weights of the run in which nothing goes wrong."""
    trainer, losses, _ = _trainer(tiny, tmp_path_factory.mktemp("run"), Strategy(2, "off"))
    trainer.train()
    return losses.all, _weights(trainer)


def test_memory_that_runs_out_at_the_third_step_does_not_change_the_trajectory(tiny, tmp_path, undisturbed) -> None:
    """In the second micro-batch, whose own partial gradient and the first one's whole one are there by then."""
    trainer, losses, ways = _trainer(tiny, tmp_path, Strategy(2, "off"))
    _fails_when(trainer, lambda step, number, labels: step == 2 and number == 2)
    trainer.train()
    assert ways == [Strategy(1, "off")]
    assert losses.all == pytest.approx(undisturbed[0], abs=1e-4)
    assert torch.allclose(_weights(trainer), undisturbed[1], atol=1e-4)


def test_with_one_conversation_at_once_more_is_checkpointed(tiny, tmp_path, undisturbed) -> None:
    trainer, losses, ways = _trainer(tiny, tmp_path, Strategy(1, "off"))
    _fails_when(trainer, lambda step, number, labels: (step, number) in ((1, 3), (3, 1)))
    trainer.train()
    assert ways == [Strategy(1, "half"), Strategy(1, "full")]
    assert losses.all == pytest.approx(undisturbed[0], abs=1e-4)
    layers = trainer.model.get_base_model().model.layers
    assert all(layer.gradient_checkpointing for layer in layers)


def test_the_step_that_is_done_again_draws_the_dropout_that_it_would_have_drawn(tiny, tmp_path) -> None:
    """The very losses of a run that had the smaller micro-batch all along."""
    first, losses, ways = _trainer(tiny, tmp_path, Strategy(2, "off"), dropout=0.3)
    _fails_when(first, lambda step, number, labels: not ways and number == 2)
    first.train()
    second, expected, _ = _trainer(tiny, tmp_path, Strategy(1, "off"), dropout=0.3)
    second.train()
    assert ways == [Strategy(1, "off")]
    assert losses.all == expected.all


def test_real_tokens_are_counted_once(tiny, tmp_path) -> None:
    trainer, _, ways = _trainer(tiny, tmp_path, Strategy(4, "off"))
    _fails_when(trainer, lambda step, number, labels: len(ways) < 2)
    trainer.train()
    by_row = [len(each.ids) for each in _conversations()]
    assert trainer.real_tokens == sum(by_row[row] for step in data_order(ROWS, STEPS, BATCH, 0) for row in step)


def test_when_nothing_more_can_be_saved_it_ends_at_the_last_whole_step(tiny, tmp_path) -> None:
    trainer, losses, ways = _trainer(tiny, tmp_path, Strategy(2, "off"))
    _fails_when(trainer, lambda step, number, labels: step == 2)
    with pytest.raises(OutOfRoom) as ended:
        trainer.train()
    assert ended.value.shortage == Shortage(64 * 2**30)
    assert ways == [Strategy(1, "off"), Strategy(1, "half"), Strategy(1, "full")]
    assert len(losses.all) == 2
    assert all(p.grad is None for p in trainer.model.parameters())


@pytest.mark.parametrize(
    ("kind", "last"),
    [("mps", []), ("cuda", [Strategy(1, "full", offload=True)]), ("cpu", [Strategy(1, "full", heap="returned")])],
)
def test_ways_go_down_by_divisors_then_by_checkpointing(kind: str, last: list[Strategy], monkeypatch) -> None:
    monkeypatch.setattr("core.train.oom_retry.heap_can_return", lambda: True)
    way, seen = Strategy(6, "off"), []
    while (way := more_frugal(way, 6, kind)) is not None:
        seen.append(way)
    assert seen == [Strategy(3, "off"), Strategy(1, "off"), Strategy(1, "half"), Strategy(1, "full"), *last]


def test_the_heap_gives_memory_back_when_that_is_all_that_is_left(tiny, tmp_path, monkeypatch) -> None:
    given_back = []
    monkeypatch.setattr("core.train.trainer.return_memory", lambda: given_back.append(True))
    trainer, losses, ways = _trainer(tiny, tmp_path, Strategy(1, "full"))
    trainer.fallback.device_kind = "cpu"
    _fails_when(trainer, lambda step, number, labels: step == 2 and not given_back)
    trainer.train()
    assert ways == [Strategy(1, "full", heap="returned")]
    assert len(losses.all) == STEPS


@pytest.mark.parametrize(
    ("said", "size"),
    [
        (str(NO_ROOM), 64 * 2**30),
        ("[enforce fail at alloc_cpu.cpp:118] … DefaultCPUAllocator: can't allocate memory: you tried to allocate "
         "68719476736 bytes. Error code 12", 2**36),
        ("CUDA error: out of memory", None),
    ],
)  # fmt: skip
def test_what_was_asked_for_in_vain_is_read_from_the_error(said: str, size: int | None) -> None:
    assert asked_bytes(said) == size


def test_a_library_that_finds_no_room_to_work_in_is_a_shortage_too() -> None:
    def no_handle() -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    assert attempt(no_handle) == Shortage(None)


def test_an_error_of_another_kind_is_not_swallowed() -> None:
    def broken() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        attempt(broken)


def test_a_failed_pass_holds_no_memory() -> None:
    """Nothing that the failed work had made is alive when the next attempt begins."""
    import weakref

    made: list[weakref.ref[torch.Tensor]] = []

    def greedy() -> None:
        large = torch.zeros(1000)
        made.append(weakref.ref(large))
        raise NO_ROOM

    assert attempt(greedy) == Shortage(64 * 2**30)
    NO_ROOM.__traceback__ = None  # this very object is a constant of ours, and keeps its traceback
    assert made[0]() is None


def _loses(trainer: NibbleTrainer, lost: Callable[[int, int], bool]) -> None:
    """The loss of a micro-batch of which `lost(step, number)` says so is not a number."""
    compute, count = trainer.summed_loss, {"step": -1, "number": 0}

    def watched(inputs: Any) -> torch.Tensor:
        step = trainer.state.global_step
        count["number"] = count["number"] + 1 if count["step"] == step else 1
        count["step"] = step
        return compute(inputs) * (math.nan if lost(step, count["number"]) else 1.0)

    trainer.summed_loss = watched  # type: ignore[method-assign]


def test_a_step_without_a_loss_changes_nothing_but_the_schedule(tiny, tmp_path, undisturbed) -> None:
    trainer, losses, _ = _trainer(tiny, tmp_path, Strategy(2, "off"))
    _loses(trainer, lambda step, number: step == 2 and number == 2)
    seen: list[tuple[torch.Tensor, Any]] = []

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            states = trainer.optimizer.state_dict()["state"]
            seen.append((_weights(trainer), [{k: v.clone() for k, v in each.items()} for each in states.values()]))
            if state.global_step == 3:
                suspects.extend(trainer.outcome.suspects)

    suspects: list[int] = []
    trainer.add_callback(Look())
    trainer.train()
    (before, states_before), (after, states_after) = seen[1:3]
    assert torch.equal(before, after)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(states_before, states_after, strict=True) for key in a)
    assert not torch.equal(after, seen[3][0])
    assert losses.all[:2] == undisturbed[0][:2] and math.isnan(losses.all[2])
    assert all(map(math.isfinite, losses.all[3:]))
    assert len(set(losses.rates)) == STEPS
    assert suspects == sorted(101 + row for row in data_order(ROWS, STEPS, BATCH, 0)[2][2:])


def test_a_gradient_that_is_not_a_number_skips_the_step_too(tiny, tmp_path) -> None:
    trainer, losses, _ = _trainer(tiny, tmp_path, Strategy(4, "off"))
    first = next(p for p in trainer.model.parameters() if p.requires_grad)
    first.register_hook(lambda gradient: gradient * math.inf if trainer.state.global_step == 1 else gradient)
    lost: list[bool] = []

    class Look(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            lost.append(trainer.outcome.lost)

    trainer.add_callback(Look())
    trainer.train()
    assert lost == [False, True, False, False, False]
    assert all(map(math.isfinite, losses.all))
    assert torch.isfinite(_weights(trainer)).all()


def test_an_overflow_in_fp16_is_left_to_the_scaler_until_its_scale_is_used_up(tiny, tmp_path) -> None:
    trainer, _, _ = _trainer(tiny, tmp_path, Strategy(4, "off"))
    trainer.train()
    parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
    for scale, lost in ((65536.0, False), (1.0, True)):
        trainer.accelerator.scaler = SimpleNamespace(get_scale=lambda scale=scale: scale)
        parameter.grad = torch.full_like(parameter, math.inf)
        trainer._clip_grad_norm(trainer.model)
        assert trainer.outcome.lost is lost
        assert (parameter.grad is None) is lost


def test_a_loss_that_jumps_is_told_once_with_a_rate_to_try(tmp_path) -> None:
    quiet = SimpleNamespace(evaluate=lambda trainer, step: None, out_of_patience=lambda: False)
    recipe = make_recipe({"train.learning_rate": 0.003})
    rows = Rows([], [], [], {})  # type: ignore[arg-type]
    watcher = Watcher(Run(tmp_path), recipe, rows, 1000, SimpleNamespace(step=0), quiet)  # type: ignore[arg-type]
    watcher.saver = SimpleNamespace(is_due=lambda step: False, trouble=lambda: "")  # type: ignore[assignment]
    control = SimpleNamespace(should_training_stop=False)
    for step, loss in enumerate([2.0] * 30 + [9.0] * 40, start=1):
        watcher.trainer = SimpleNamespace(outcome=Outcome(loss), real_tokens=step)
        watcher.on_log(None, SimpleNamespace(global_step=step), control, {"loss": loss})
    assert [json.loads(event)["message"] for event in _events(watcher.run)] == [
        "Step 33: the loss has jumped from about 2.00 to 9.00. If it does not recover, stop the run and start it "
        "with a lower learning rate: it is 0.003; try 0.001."
    ]


def test_rows_to_look_at_are_named_but_not_by_the_hundred() -> None:
    assert (named([7]), named([7, 1200])) == ("row 7", "rows 7, 1,200")
    assert named(list(range(1, 31))) == "rows 1, 2, 3, 4, 5, 6, 7, 8 and 22 more"


class _Modest:
    """Stands for a trainer that has room for so many tokens at once."""

    ranks = ALONE

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, []
        self.processing_class = None
        self.model = SimpleNamespace(eval=lambda: None, train=lambda: None)

    def held_out_loss(self, batches: Any) -> float:
        for batch in batches:
            self.tried.append(batch["input_ids"].numel())
            if self.tried[-1] > self.most:
                raise NO_ROOM
        return 2.0


def _evaluator(folder: Path, prompts: list[str], **settings: Any) -> tuple[Run, Evaluator]:
    run = Run(folder)
    conversations = _conversations()
    rows = Rows(conversations, conversations, prompts, {})  # type: ignore[arg-type]
    return run, Evaluator(run, make_recipe(settings), rows, False, 4096)


def _events(run: Run) -> list[str]:
    file = run.dir / "events.jsonl"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def test_an_evaluation_without_enough_memory_is_measured_in_smaller_batches(tmp_path) -> None:
    run, evaluator = _evaluator(tmp_path, [])
    trainer = _Modest(most=40)
    evaluator.evaluate(trainer, 0)
    assert evaluator.first_loss == 2.0
    assert _events(run) == []
    trainer.tried.clear()
    evaluator.evaluate(trainer, 0)
    assert max(trainer.tried) <= 40, "the smaller size is remembered"


@pytest.mark.full
def test_an_evaluation_for_which_there_is_no_memory_at_all_is_left_out_and_said_once(tmp_path) -> None:
    run, evaluator = _evaluator(tmp_path, [])
    for step in (0, 5):
        evaluator.evaluate(_Modest(most=3), step)
    assert evaluator.loss is None
    assert len(_events(run)) == 1 and "skipped" in _events(run)[0]


def test_sample_prompts_are_asked_one_by_one_and_then_not_at_all(tmp_path, monkeypatch) -> None:
    room, asked = {"prompts": 1}, []

    def answers(model: Any, tokenizer: Any, prompts: list[str], most: int) -> list[str]:
        asked.append(len(prompts))
        if len(prompts) > room["prompts"]:
            raise NO_ROOM
        return [f"to {prompt}" for prompt in prompts]

    monkeypatch.setattr("core.train.evaluation.answers", answers)
    run, evaluator = _evaluator(tmp_path, ["a", "b", "c"])
    evaluator.evaluate(_Modest(most=9999), 0)
    assert asked == [3, 1, 1, 1]
    assert (tmp_path / "samples.jsonl").read_text().count("to ") == 3
    room["prompts"] = 0
    evaluator.evaluate(_Modest(most=9999), 0)
    evaluator.evaluate(_Modest(most=9999), 0)
    assert len(_events(run)) == 1 and "sample replies" in _events(run)[0]


def test_the_best_is_the_lowest_loss_and_patience_counts_what_comes_after(tmp_path) -> None:
    _, evaluator = _evaluator(tmp_path, [], **{"evaluation.patience": 2})
    best = evaluator.best
    assert [best.take(step, loss) for step, loss in ((5, 2.0), (10, 1.5), (15, 1.6))] == [True, True, False]
    assert not evaluator.out_of_patience()
    best.take(20, math.nan)
    assert evaluator.out_of_patience()
    assert best.summary() == {"step": 10, "eval_loss": 1.5}
    assert Best(**asdict(best)) == best


def test_perplexity_is_e_to_the_loss() -> None:
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(None) is None and perplexity(math.nan) is None and perplexity(1e4) is None


class _Saves(torch.nn.Module):
    def __init__(self, name: str, text: str) -> None:
        super().__init__()
        self.name, self.text = name, text

    def save_pretrained(self, folder: Path, **_: Any) -> None:
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_text(self.text)


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_the_best_adapter_is_never_lost_half_way(tmp_path, monkeypatch, renames: int) -> None:
    """The machine goes down after so many of the renames that put the new one in the old one's place."""
    tokenizer = _Saves("tokenizer.json", "words")
    keep_best(tmp_path, 5, _Saves("adapter", "old"), tokenizer)
    done, rename = [], Path.rename

    def until(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", until)
        try:
            keep_best(tmp_path, 9, _Saves("adapter", "new"), tokenizer)
        except KeyboardInterrupt:
            assert renames < 2
    put_back(tmp_path)
    kept = tmp_path / BEST
    assert is_valid(kept)
    assert (kept / "adapter").read_text() == ("old" if renames == 0 else "new")
    assert (kept / "tokenizer.json").exists()
    keep_best(tmp_path, 12, _Saves("adapter", "newest"), tokenizer)
    assert (tmp_path / BEST / "adapter").read_text() == "newest"
