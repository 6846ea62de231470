"""Makes the tables of what each card can train, from traced training steps.

    python docs/what_fits.py [--tables]

Traces every model of presets/models/facts at every length, which takes minutes, then writes presets/what_fits.json,
docs/what_fits.md and README.md's section. Traces that are in the JSON already, made by the same versions, are kept.
`--tables` traces nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.catalogue.facts import Card, ModelFacts, cards, model_facts  # noqa: E402
from core.catalogue.what_fits import FILE, ON_LINUX, Fit, WhatFits, as_what_fits, longest_within  # noqa: E402
from core.errors import NibbleError  # noqa: E402
from core.sizes import show_size  # noqa: E402
from core.workspace import Workspace, read_json  # noqa: E402

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
SETTINGS: dict[str, Any] = {
    "lora.rank": 16,
    "quantization.type": "nf4",
    "quantization.double": True,
    "train.micro_batch": 1,
    "train.gradient_checkpointing": "on",
    "train.optimizer": "paged_adamw_32bit",
}
PACKAGES = ("torch", "transformers", "bitsandbytes", "peft")
# Models with the shape of another, whose numbers would be the same.
SHAPED_AS = {
    "llama-3-8b": "llama-3.1-8b",
    "llama-3-70b": "llama-3.3-70b",
    "llama-3.1-70b": "llama-3.3-70b",
}
PAGE = ROOT / "docs" / "what_fits.md"
README = ROOT / "README.md"
MARKS = ("<!-- what-fits -->", "<!-- /what-fits -->")
IN_README = {
    "Qwen3 0.6B": "qwen3-0.6b",
    "Llama 3.2 1B": "llama-3.2-1b",
    "Llama 3.2 3B": "llama-3.2-3b",
    "Qwen3 4B": "qwen3-4b",
    "LLaMA 7B": "llama-7b",
    "Mistral 7B": "mistral-7b",
    "Llama 3.1 8B": "llama-3.1-8b",
    "Gemma 2 9B": "gemma-2-9b",
    "Qwen3 14B": "qwen3-14b",
    "Qwen3 30B-A3B": "qwen3-30b-a3b",
    "Qwen3 32B": "qwen3-32b",
    "LLaMA 65B": "llama-65b",
    "Llama 3.3 70B": "llama-3.3-70b",
}
CARDS_IN_README = {
    "6 GB": ("RTX 2060", "rtx-2060-6gb"),
    "8 GB": ("RTX 4060", "rtx-4060-8gb"),
    "12 GB": ("RTX 3060", "rtx-3060-12gb"),
    "16 GB": ("RTX 4060 Ti", "rtx-4060-ti-16gb"),
    "24 GB": ("RTX 4090", "rtx-4090-24gb"),
    "32 GB": ("RTX 5090", "rtx-5090-32gb"),
    "48 GB": ("RTX A6000", "a6000-48gb"),
    "80 GB": ("A100", "a100-80gb"),
}
HOW = (
    "These contexts were traced, not run: Nibble follows the real training step without the weights and counts every "
    "byte. Not yet confirmed on a GPU."
)


def main() -> int:
    """Trace what is missing, then write the three files."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tables", action="store_true", help="trace nothing, only write the tables again")
    found = kept()
    if not options.parse_args().tables:
        trace_all(found)
    finish(found)
    table = as_what_fits(found)
    PAGE.write_text(page(table), encoding="utf-8")
    README.write_text(with_section(README.read_text(encoding="utf-8"), section(table)), encoding="utf-8")
    return 0


def versions() -> dict[str, str]:
    """The versions of the packages that the traces depend on."""
    return {package: metadata.version(package) for package in PACKAGES}


def kept() -> dict[str, Any]:
    """The traces made earlier by these versions with these settings, or an empty table."""
    found: dict[str, Any] | None = read_json(FILE)
    if found and found["made"]["versions"] == versions() and found["made"]["settings"] == SETTINGS:
        return found
    made = {"date": "", "versions": versions(), "settings": SETTINGS, "lengths": list(LENGTHS)}
    return {"made": made, "models": {}, "left_out": {}, "cards": {}}


def largest_cards(model_type: str) -> dict[str, Card]:
    """For each dtype that models of this type are computed in, the card with the most memory."""
    by_size = sorted(cards().values(), key=lambda card: card.memory_bytes)
    return {card.computes_in(model_type): card for card in by_size}


def trace_all(found: dict[str, Any]) -> None:
    """Trace every model that is not in the table yet, the smallest first, and save after each trace."""
    known = model_facts()
    found["models"] = {name: model for name, model in found["models"].items() if name in known}
    found["left_out"] = {
        known[
            name
        ].title: f"has the shape of {known[like].title}: the same numbers, up to {limit_of(known[name]):,} tokens."
        for name, like in SHAPED_AS.items()
    }
    for facts in sorted(known.values(), key=lambda facts: facts.parameters):
        if facts.name in SHAPED_AS:
            continue
        try:
            for said in trace_model(facts, found):
                print(said, flush=True)
                save(found)
        except NibbleError as error:
            found["models"].pop(facts.name, None)
            found["left_out"][facts.title] = str(error)
            print(facts.name, found["left_out"][facts.title], flush=True)


def limit_of(facts: ModelFacts) -> int:
    """The longest context to trace for a model: its own limit, or the last of LENGTHS."""
    return min(LENGTHS[-1], int(facts.config["max_position_embeddings"]))


def trace_model(facts: ModelFacts, found: dict[str, Any]) -> Iterator[str]:
    """Trace one model, shortest first, up to its limit or the first length that no card holds."""
    limit = limit_of(facts)
    kind = str(facts.config["model_type"])
    known = found["models"].get(facts.name, {}).get("traces", {})
    by_dtype = {dtype: known.get(dtype, {}) for dtype in largest_cards(kind)}
    about = {"title": facts.title, "model_type": kind, "parameters": facts.parameters, "limit": limit}
    found["models"][facts.name] = {**about, "traces": by_dtype}
    for dtype, largest in largest_cards(kind).items():
        traces = by_dtype[dtype]
        for length in (length for length in LENGTHS if length <= limit):
            if str(length) not in traces:
                started = time.monotonic()
                traces[str(length)] = traced(facts.name, length, largest.name)
                found["made"]["date"] = time.strftime("%Y-%m-%d")
                peak = show_size(traces[str(length)]["peak_bytes"]["process"])
                yield f"{facts.name} {dtype} {length}: {peak} ({time.monotonic() - started:.1f} s)"
            if traces[str(length)]["peak_bytes"]["process"] > largest.memory_bytes:
                break


def traced(model: str, length: int, card: str) -> dict[str, Any]:
    """The peak of `model` at `length`, by category, just as `plan --card` gives it."""
    from core.memory.estimate import make_plan
    from core.recipe import make_recipe

    recipe = make_recipe({**SETTINGS, "model": model, "data.max_length": length, "budget": "1TiB"})
    peak = make_plan(recipe, Workspace.open(None), card).peak
    return {"peak_bytes": peak.as_json(), "managed_bytes": peak.traced.managed, "breakdown": peak.breakdown}


def finish(found: dict[str, Any]) -> None:
    """Bring the peaks' share that is not tensors up to date, and work out for every card what fits."""
    from core.memory.device import of_card
    from core.memory.problem import Peak
    from core.memory.trace import Phase, Traced

    for model in found["models"].values():
        for dtype, largest in largest_cards(model["model_type"]).items():
            for entry in model["traces"][dtype].values():
                tensors = {key: size for key, size in entry["breakdown"].items() if key not in ("allocator", "context")}
                tensors["workspace"] -= of_card(largest).workspace_bytes  # which the peak has on top
                tensors["optimizer"] -= entry["managed_bytes"]  # as well
                step = Traced((Phase("peak", tensors),), {}, managed=entry["managed_bytes"])
                peak = Peak(step, replace(of_card(largest), segments_grow=True))  # as ON_LINUX says
                entry |= {"peak_bytes": peak.as_json(), "breakdown": peak.breakdown}
    found["cards"] = {name: _card(card, found["models"]) for name, card in cards().items()}
    save(found)


def _card(card: Card, models: dict[str, Any]) -> dict[str, Any]:
    longest = {}
    for name, model in models.items():
        traces = model["traces"][card.computes_in(model["model_type"])]
        peaks = {int(length): entry["peak_bytes"]["process"] for length, entry in traces.items()}
        longest[name] = longest_within(peaks, card.memory_bytes)
    return {"memory_bytes": card.memory_bytes, "dtype": card.computes_in(), "longest": longest}


def save(found: dict[str, Any]) -> None:
    """Replace the JSON, its innermost objects on a line each."""
    text = json.dumps(found, ensure_ascii=False, indent=1)
    text = re.sub(r"\{[^{}]*\}", lambda match: " ".join(match[0].split()), text)
    written = FILE.with_suffix(".part")
    written.write_text(text + "\n", encoding="utf-8")
    written.replace(FILE)


def section(table: WhatFits) -> str:
    """README.md's section, between its marks."""
    head = "".join(f" {size}<br>{name} |" for size, (name, _) in CARDS_IN_README.items())
    lines = [f"| longest conversation, in tokens |{head}", "|---|" + "---:|" * len(CARDS_IN_README)]
    for title, model in IN_README.items():
        cells = "".join(f" {_cell(table.fit(model, card))} |" for _, card in CARDS_IN_README.values())
        lines.append(f"| {title} |{cells}")
    rank = table.made["settings"]["lora.rank"]
    return (
        "## What can my card train?\n\n" + "\n".join(lines) + "\n\n"
        f"– does not fit; **bold** is the longest length traced: the model's own limit, or {LENGTHS[-1]:,}. In 4 bits, "
        f"rank {rank} on all linear layers, one conversation at a time, full gradient checkpointing, paged 32-bit "
        "AdamW, and nothing else on the card.\n\n"
        f"{HOW} {ON_LINUX} Made by [docs/what_fits.py](docs/what_fits.py); [docs/what_fits.md](docs/what_fits.md) has "
        f"{len(table.models)} models on {len(table.longest)} cards. For your own settings: "
        "`python launch.py plan modern --set model=qwen3-8b --card rtx-3060-12gb`.\n"
    )


def with_section(readme: str, written: str) -> str:
    """The README with the section between its marks replaced."""
    before, rest = readme.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return f"{before}{MARKS[0]}\n{written}{MARKS[1]}{after}"


def page(table: WhatFits) -> str:
    """docs/what_fits.md."""
    made = table.made
    settings = "\n".join(f"| `{key}` | {str(value).lower()} |" for key, value in made["settings"].items())
    with_these = ", ".join(f"{package} {version}" for package, version in made["versions"].items())
    left_out = "\n".join(f"- {title}: {reason}" for title, reason in table.left_out.items())
    return "\n\n".join(
        [
            "# What can my card train?",
            f"Written by `python docs/what_fits.py`, never by hand. {made['date']} · {with_these}",
            f"{HOW} {ON_LINUX}",
            "## How it was made",
            "For each model and length, `python launch.py plan` was run with these settings (the others at their "
            "defaults: LoRA on all linear layers, 16 conversations per optimizer step, all of that length):",
            f"| setting | value |\n|---|---|\n{settings}",
            "It builds the model on meta tensors, as training would load it, and follows two optimizer steps, counting "
            "every storage as it is allocated and freed. The allocator's blocks and the CUDA context on top are "
            "modelled, not traced. The paged optimizer's states count as if all of them were on the card. A context "
            "fits if the process' peak is within all of the card's memory; a screen on the same card takes some of "
            "that. Cards without bf16 compute in fp16, with adapters in 32 bits, which takes more; where that is slow "
            "(GTX 1080 Ti) or overflows (Gemma), in fp32.",
            f"Lengths: {', '.join(f'{length:,}' for length in LENGTHS)}, up to the model's own limit or the first that "
            "fits on no card. `presets/what_fits.json` has the parts of each peak.",
            "## Longest context by card, in tokens",
            "– does not fit; **bold** is the longest length traced.",
            *_card_tables(table),
            "## Peak of the process by length",
            *(_peak_table(table, dtype) for dtype in ("bfloat16", "float16", "float32")),
            "## Left out",
            left_out + "\n",
        ]
    )


def _cell(fit: Fit) -> str:
    if fit.longest is None:
        return "–"
    return f"**{fit.longest:,}**" if fit.is_limit else f"{fit.longest:,}"


def _card_tables(table: WhatFits) -> Iterator[str]:
    """Cards against models, a third of the models at a time."""
    models = sorted(table.models.values(), key=lambda model: model.parameters)
    wide = -(-len(models) // 3)
    for part in (models[start : start + wide] for start in range(0, len(models), wide)):
        lines = ["| card | GiB |" + "".join(f" {model.title} |" for model in part), "|---|" + "---:|" * (len(part) + 1)]
        for card in sorted(cards().values(), key=lambda card: card.memory_bytes):
            cells = "".join(f" {_cell(table.fit(model.name, card.name))} |" for model in part)
            lines.append(f"| {card.title} | {card.memory_bytes / 2**30:.1f} |{cells}")
        yield "\n".join(lines)


def _peak_table(table: WhatFits, dtype: str) -> str:
    """Every peak in one dtype."""
    head = "".join(f" {length:,} |" for length in LENGTHS)
    lines = [f"| {dtype}, GiB |{head}", "|---|" + "---:|" * len(LENGTHS)]
    for model in sorted(table.models.values(), key=lambda model: model.parameters):
        peaks = model.peaks.get(dtype, {})
        cells = "".join(f" {peaks[length] / 2**30:.2f} |" if length in peaks else " |" for length in LENGTHS)
        lines.append(f"| {model.title} |{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
