"""The tables of what each card can train: they are what the tracer says, whole, and the same in every place."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from core.catalogue.facts import cards, find_card, model_facts
from core.catalogue.what_fits import ON_LINUX, longest_within, nearest_card, what_fits
from core.memory.device import of_card
from core.workspace import ROOT, read_json

FOUND = read_json(ROOT / "presets" / "what_fits.json")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/what_fits.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("what_fits_script", ROOT / "docs" / "what_fits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "length", "dtype"),
    [("smollm2-135m", 512, "bfloat16"), ("opt-125m", 2048, "float16"), ("gemma-3-1b", 512, "float32")],
)
def test_an_entry_is_what_the_tracer_says_now(script: ModuleType, model: str, length: int, dtype: str) -> None:
    card = script.largest_cards(model_facts()[model].config["model_type"])[dtype]
    assert script.traced(model, length, card.name) == FOUND["models"][model]["traces"][dtype][str(length)]


def test_every_peak_is_the_sum_of_its_parts() -> None:
    for model in FOUND["models"].values():
        for entries in model["traces"].values():
            for entry in entries.values():
                assert sum(entry["breakdown"].values()) == entry["peak_bytes"]["process"]


def test_every_card_and_every_model_of_the_catalogue_is_there_or_left_out_with_a_reason(script: ModuleType) -> None:
    assert set(FOUND["cards"]) == set(cards())
    assert all(set(card["longest"]) == set(FOUND["models"]) for card in FOUND["cards"].values())
    left_out = {facts.name for facts in model_facts().values() if facts.title in FOUND["left_out"]}
    assert left_out | set(FOUND["models"]) == set(model_facts())
    assert not left_out & set(FOUND["models"])
    assert len(FOUND["models"]) >= 30
    assert all(len(reason) > 20 for reason in FOUND["left_out"].values())


def test_a_model_that_is_said_to_have_the_shape_of_another_has_it(script: ModuleType) -> None:
    without = {"max_position_embeddings", "rope_parameters", "rope_scaling", "rope_theta"}
    for name, like in script.SHAPED_AS.items():
        one, other = (model_facts()[each].config for each in (name, like))
        assert {k: v for k, v in one.items() if k not in without} == {
            k: v for k, v in other.items() if k not in without
        }
        assert script.limit_of(model_facts()[name]) <= script.limit_of(model_facts()[like])


def test_what_fits_on_a_card_follows_from_its_memory_and_dtype() -> None:
    for name, entry in FOUND["cards"].items():
        card = find_card(name)
        assert (entry["memory_bytes"], entry["dtype"]) == (card.memory_bytes, card.computes_in())
        for fit in what_fits().on_card(name):
            kind = model_facts()[fit.model.name].config["model_type"]
            assert fit.longest == longest_within(fit.model.peaks[card.computes_in(kind)], card.memory_bytes)
            assert (fit.peak_bytes <= card.memory_bytes) == (fit.longest is not None)


def test_longer_never_takes_less_and_every_length_was_traced_that_a_card_might_hold(script: ModuleType) -> None:
    for model in what_fits().models.values():
        for dtype, largest in script.largest_cards(model.model_type).items():
            peaks = model.peaks[dtype]
            assert list(peaks.values()) == sorted(peaks.values())
            assert max(peaks) == model.limit or peaks[max(peaks)] > largest.memory_bytes


def test_the_readme_and_the_page_are_what_the_script_writes(script: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == script.with_section(readme, script.section(what_fits()))
    assert (ROOT / "docs" / "what_fits.md").read_text(encoding="utf-8") == script.page(what_fits())


def test_what_windows_takes_more_is_what_the_tables_say() -> None:
    """The sentence beside them names 7 %, and a context that fits a card on Linux only."""
    entry = FOUND["models"]["qwen3-14b"]["traces"]["bfloat16"]["512"]["peak_bytes"]
    linux = of_card(find_card("rtx-3060-12gb"))
    blocks = {grow: replace(linux, segments_grow=grow).reserved(entry["tensors"]) for grow in (True, False)}
    assert blocks[False] / blocks[True] == pytest.approx(1.07, abs=0.005)
    assert what_fits().fit("qwen3-14b", "rtx-3060-12gb").longest is not None
    assert entry["process"] + blocks[False] - blocks[True] > linux.total_bytes
    assert "up to 7 % more" in ON_LINUX


def test_the_readme_links_to_what_is_there(script: ModuleType) -> None:
    for link in re.findall(r"\]\((docs/[^)]+)\)", script.section(what_fits())):
        assert (ROOT / link).is_file()


def test_the_papers_models_fit_where_it_says_so() -> None:
    """LLaMA 65B on 48 GB and 7B on 12 GB at 512 tokens, at this rank: QLoRA's own claim."""
    assert what_fits().fit("llama-65b", "a6000-48gb").longest is not None
    assert what_fits().fit("llama-7b", "rtx-3060-12gb").longest is not None
    assert what_fits().fit("llama-65b", "rtx-4090-24gb").longest is None


@pytest.mark.parametrize(
    ("driver", "gib", "name"),
    [
        ("NVIDIA GeForce RTX 3060", 12.0, "rtx-3060-12gb"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 15.99, "rtx-4070-ti-super-16gb"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", 7.99, "rtx-4060-laptop-8gb"),
        ("NVIDIA GeForce RTX 4060 Ti", 15.99, "rtx-4060-ti-16gb"),
        ("NVIDIA A100-SXM4-80GB", 80.0, "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", 40.0, "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", 79.6, "h100-80gb"),
        ("NVIDIA RTX 6000 Ada Generation", 47.99, "rtx-6000-ada-48gb"),
        ("NVIDIA RTX A6000", 48.0, "a6000-48gb"),
        ("Tesla T4", 15.0, "t4-16gb"),
    ],
)
def test_a_card_is_known_by_what_its_driver_calls_it(driver: str, gib: float, name: str) -> None:
    card, is_same = nearest_card(driver, int(gib * 2**30))
    assert (card.name, is_same) == (name, True)


def test_an_unknown_card_is_shown_as_one_with_no_more_memory_where_there_is_one() -> None:
    card, is_same = nearest_card("NVIDIA GeForce RTX 9999", 22 * 2**30)
    assert not is_same and card.memory_bytes <= 22 * 2**30
    assert nearest_card("NVIDIA GeForce GTX 1050", 2 * 2**30)[0].memory_bytes == min(
        card.memory_bytes for card in cards().values()
    )


@pytest.mark.parametrize(("memory", "longest"), [(0, None), (5, 512), (9, 1024), (99, 2048)])
def test_the_longest_context_is_the_last_that_fits(memory: int, longest: int | None) -> None:
    assert longest_within({512: 5, 1024: 9, 2048: 12}, memory) == longest


def test_reading_the_table_brings_no_torch() -> None:
    code = "import sys, core.catalogue.what_fits as w; w.what_fits(); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=Path(ROOT), capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
