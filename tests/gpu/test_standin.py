"""The stand-in itself: it errs where CUDA errs, and counts as torch's allocator counts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu_standin.install import figures
from tests.gpu_standin.machine import ADA, AMPERE, PASCAL, Card, Machine, occupy

MIB = 2**20


def test_a_tensor_left_on_the_cpu_is_an_error() -> None:
    on_card = torch.ones(3, 3, device="cuda")
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        on_card @ torch.ones(3, 3)
    with pytest.raises(RuntimeError, match="Expected all tensors"):
        torch.nn.functional.embedding(torch.tensor([1]), on_card)


def test_a_number_may_lie_on_the_cpu_and_so_may_indices() -> None:
    on_card = torch.arange(3.0, device="cuda")
    assert (on_card * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert on_card[torch.tensor([2, 0])].tolist() == [2, 0]


def test_results_views_and_changes_in_place_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    plain = torch.randn(6, 5)
    on_card = plain.to("cuda")
    view = on_card.t()[1:3]
    view.mul_(2)
    plain.t()[1:3].mul_(2)
    assert torch.equal(on_card.cpu(), plain)
    assert view.untyped_storage().data_ptr() == on_card.untyped_storage().data_ptr()
    assert torch.equal(torch.sort(on_card, 0).indices.cpu(), torch.sort(plain, 0).indices)
    on_card.resize_(40)
    assert on_card.shape == (40,) and torch.equal(on_card[:30].cpu(), plain.flatten())


def test_gradients_are_those_of_the_cpu() -> None:
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        layer = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)).to(device)
        layer(torch.linspace(-1, 1, 24).view(3, 8).to(device)).square().mean().backward()
        found.append([each.grad.cpu() for each in layer.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_random_numbers_are_the_cards_own_and_can_be_kept() -> None:
    torch.manual_seed(1)
    kept = torch.cuda.get_rng_state()
    first = torch.rand(4, device="cuda")
    on_cpu = torch.rand(4)
    torch.cuda.set_rng_state(kept)
    assert torch.equal(torch.rand(4, device="cuda"), first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(4), on_cpu), "what the card draws does not change what the CPU draws"


def test_memory_is_counted_in_blocks_of_512_bytes_and_given_back() -> None:
    before = torch.cuda.memory_allocated()
    tensor = torch.empty(129, device="cuda")  # 516 bytes
    assert torch.cuda.memory_allocated() - before == 1024
    del tensor
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() >= before + 1024


@pytest.mark.machine(Machine(cards=(Card("small", (8, 6), 1024),), context_mib=200))
def test_memory_runs_out_where_the_cards_the_drivers_and_the_limits_end() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory. Tried to allocate"):
        torch.empty(600 * MIB, dtype=torch.uint8, device="cuda")  # 1,024 - 300 - 200 are left
    torch.empty(500 * MIB, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.25)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(300 * MIB, dtype=torch.uint8, device="cuda")


def test_another_process_takes_its_share(machine) -> None:
    import os

    free, total = torch.cuda.mem_get_info()
    occupy(Path(os.environ["GPU_STANDIN_MACHINE"]), 1000)
    assert torch.cuda.mem_get_info() == (free - 1000 * MIB, total)


def test_fresh_memory_holds_nan() -> None:
    assert torch.empty(4, device="cuda").isnan().all()
    assert torch.zeros(4, device="cuda").tolist() == [0, 0, 0, 0]


def test_a_copy_on_a_side_stream_is_there_only_after_a_wait() -> None:
    side, pinned = torch.cuda.Stream(), torch.arange(4.0).pin_memory()
    with torch.cuda.stream(side):
        on_card = pinned.to("cuda", non_blocking=True)
    with pytest.raises(RuntimeError, match=r"race: stream 0 reads .* what stream \d+ writes"):
        on_card.sum()
    torch.cuda.current_stream().wait_stream(side)
    on_card.record_stream(torch.cuda.current_stream())
    assert on_card.tolist() == [0, 1, 2, 3]


def test_what_another_stream_still_reads_may_not_be_overwritten() -> None:
    side = torch.cuda.Stream()
    slot, pinned = torch.zeros(4, device="cuda"), torch.ones(4).pin_memory()
    slot.sum()
    with torch.cuda.stream(side), pytest.raises(RuntimeError, match="race: stream .* writes"):
        slot.copy_(pinned, non_blocking=True)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        slot.copy_(pinned, non_blocking=True)
    side.synchronize()
    assert slot.tolist() == [1, 1, 1, 1]


def test_a_copy_to_the_host_is_there_only_after_a_wait() -> None:
    side, pinned = torch.cuda.Stream(), torch.zeros(4).pin_memory()
    on_card = torch.ones(4, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        pinned.copy_(on_card, non_blocking=True)
    assert pinned.isnan().all()
    side.synchronize()
    assert pinned.tolist() == [1, 1, 1, 1]


@pytest.mark.machine(Machine(pin_limit=4 * MIB))
def test_pinned_memory_is_rounded_up_and_can_run_out() -> None:
    kept = torch.empty(2**20 + 1, dtype=torch.uint8, pin_memory=True)
    assert kept.is_pinned() and figures().pinned == 2 * MIB
    with pytest.raises(RuntimeError, match="CUDA error: out of memory"):
        torch.empty(2**21 + 1, dtype=torch.uint8, pin_memory=True)


@pytest.mark.parametrize(
    ("card", "dtype", "masked", "kernel"),
    [
        (AMPERE, torch.bfloat16, False, "by_flash"),
        (AMPERE, torch.bfloat16, True, "by_efficient"),
        (AMPERE, torch.float32, False, "by_efficient"),
        (PASCAL, torch.float16, False, "by_efficient"),
        (PASCAL, torch.bfloat16, False, "by_math"),
    ],
)
def test_attention_is_computed_by_the_kernel_that_cuda_would_take(card, dtype, masked, kernel, machine) -> None:
    machine.card[0].major, machine.card[0].minor = card.capability
    torch.manual_seed(0)
    heads = [torch.randn(1, 4, 8, 16, dtype=dtype) for _ in range(3)]
    mask = torch.ones(8, 8, dtype=torch.bool).tril() if masked else None
    attend = torch.nn.functional.scaled_dot_product_attention
    before = getattr(figures(), kernel)
    on_card = [each.to("cuda").requires_grad_() for each in heads]
    found = attend(*on_card, attn_mask=None if mask is None else mask.to("cuda"), is_causal=not masked)
    assert getattr(figures(), kernel) == before + 1
    expected = attend(*(each.float() for each in heads), attn_mask=mask, is_causal=not masked)
    assert torch.allclose(found.detach().cpu().float(), expected, atol=0.02)
    found.sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in on_card)


@pytest.mark.parametrize("bits", ["nf4", "fp4"])
def test_bitsandbytes_quantises_as_on_the_cpu(bits) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.manual_seed(0)
    weight = torch.randn(64, 128)
    found = []
    for device in ("cpu", "cuda"):
        packed, state = quantize_4bit(weight.to(device), quant_type=bits, compress_statistics=True)
        found.append((packed.cpu(), state.absmax.cpu(), dequantize_4bit(packed, state).cpu()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_nvml_and_nvidia_smi_tell_of_the_same_card(machine) -> None:
    from core.setup.wheels import find_nvidia
    from core.system.hardware import cuda_capability, cuda_devices, cuda_driver

    assert [(card.name, card.total_bytes, card.free_bytes) for card in cuda_devices()] == [
        (AMPERE.name, AMPERE.mib * MIB, (AMPERE.mib - AMPERE.driver_mib) * MIB - machine.process[0].bytes)
    ]
    assert (cuda_capability(0), cuda_driver()) == ((8, 6), "580.95.05")
    cards, driver, problem = find_nvidia()
    assert [card.name for card in cards] == [AMPERE.name] and driver == 580 and not problem


@pytest.mark.machine(Machine(cards=(AMPERE, ADA)))
def test_a_process_sees_the_cards_that_it_is_given() -> None:
    code = "import torch; print(torch.cuda.device_count(), torch.cuda.get_device_name())"
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split(maxsplit=1) == ["1", ADA.name + "\n"]
