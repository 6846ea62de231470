"""The README of an export: what it is, how it was trained, the proof, and the lines that use it. Imports no torch."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml

from core.basemodel.find import model_presets
from core.catalogue.facts import model_facts
from core.export.card.loss_svg import loss_points, picture
from core.export.proof.report import Verified, lines, sentence
from core.export.shared.names import is_on_hub, portable_recipe
from core.export.shared.source import ExportSource
from core.runs.tail import Tail
from core.sizes import show_duration, show_size

CURVES, RECIPE = "curves.svg", "recipe.yaml"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "trl")
_FENCE = re.compile(r"`{3,}")


@dataclass(frozen=True)
class ModelCard:
    """What a README says that depends on the format: its `title`, what it is, how it is used, and the libraries."""

    title: str
    what: str
    usage: str
    library: str
    tags: tuple[str, ...] = ()


def write_card(source: ExportSource, folder: Any, card: ModelCard, verified: Verified) -> None:
    """Write README.md, recipe.yaml and, where there are losses, curves.svg into `folder`."""
    recipe, dataset = portable_recipe(source.recipe, source.base, source.run.dataset())
    text = recipe.to_yaml() + yaml.safe_dump({"dataset": dataset}, sort_keys=False, allow_unicode=True)
    (folder / RECIPE).write_text(text, encoding="utf-8")
    drawn = picture(*loss_points(source.run.dir / "metrics.jsonl"))
    if drawn:
        (folder / CURVES).write_text(drawn, encoding="utf-8")
    (folder / "README.md").write_text(_readme(source, card, verified, bool(drawn)), encoding="utf-8")


def sample_prompt(source: ExportSource) -> str:
    """What the README's lines ask: a sample prompt of the run, where it had one."""
    rows = Tail(source.run.dir / "samples.jsonl").read()
    prompts = (row["prompt"] for row in rows if isinstance(row.get("prompt"), str))
    return next(prompts, "Hello! Who are you?")


def licence_of(source: ExportSource) -> str | None:
    """The licence of the base, where it is known: of well-known models, and of those that ship with Nibble."""
    if source.base.wanted in model_presets():
        return "mit"
    known = (facts for facts in model_facts().values() if facts.hub == source.base.source)
    return next((facts.license for facts in known), None)


def _readme(source: ExportSource, card: ModelCard, verified: Verified, has_curves: bool) -> str:
    parts = [
        _front(source, card),
        f"# {_inline(source.run.name)}: {card.title}",
        card.what,
        f"## Use it\n\n{card.usage}",
        f"## Proved\n\n{sentence(verified)} {_prompts(verified)}{_checks(verified)}",
        f"## How it was trained\n\n{_training(source)}",
        *([f"![Loss over steps]({CURVES})"] if has_curves else []),
        f"The exact settings are in [{RECIPE}]({RECIPE}).",
        f"## Made with\n\nNibble, with {', '.join(f'{name} {version(name)}' for name in PACKAGES)}.",
        _licence(source),
    ]
    return "\n\n".join(parts) + "\n"


def _prompts(verified: Verified) -> str:
    if not verified["prompts"]:
        return ""
    return f"The prompts are {verified['source']}; replies were generated greedily from the freshly loaded export."


def _checks(verified: Verified) -> str:
    """Each thing that was compared, as a list."""
    return "".join(f"{chr(10) * (1 if at else 2)}- {_inline(line)}" for at, line in enumerate(lines(verified)))


def _front(source: ExportSource, card: ModelCard) -> str:
    """The metadata that the Hugging Face Hub reads from a model card."""
    about: dict[str, Any] = {"library_name": card.library, "pipeline_tag": "text-generation"}
    if is_on_hub(source.base):
        about["base_model"] = source.base.source
    licence = licence_of(source)
    if licence is not None:
        about["license"] = licence
    about["tags"] = ["nibble", "qlora", *card.tags]
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---"


def _training(source: ExportSource) -> str:
    recipe, result, run = source.recipe, source.run.result(), source.run
    _, dataset = portable_recipe(recipe, source.base, run.dataset())
    held = f"{recipe.quantization.bits} bits"
    if recipe.quantization.bits == 4:
        held += f" ({recipe.quantization.type.upper()}{', double quantisation' if recipe.quantization.double else ''})"
    revision = f" at commit `{source.base.revision}`" if source.base.revision else ""
    rows = [
        ("Base", f"`{source.base_name}`{revision}, held in {held}"),
        ("Data", f"{_inline(str(dataset.get('name', 'a file')))}, SHA-256 `{dataset.get('sha256', 'unknown')}`"),
        ("Adapter", _adapter(source)),
        *([("Started from", f"the adapter {_inline(recipe.lora.start_from)}")] if recipe.lora.start_from else []),
        ("Steps", f"{source.step:,} of {recipe.train.effective_batch} conversations"),
        ("Learning rate", f"{recipe.train.learning_rate:g}, {recipe.train.schedule}"),
        ("Seed", str(recipe.train.seed)),
        *_losses(source),
        *_cost(result),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _adapter(source: ExportSource) -> str:
    lora = source.recipe.lora
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    kinds = [kind for kind, is_so in (("DoRA", lora.dora), ("rsLoRA", lora.scaling != "standard")) if is_so]
    return f"rank {lora.rank}, alpha {lora.alpha:g}, on {targets}{''.join(f', {kind}' for kind in kinds)}"


def _losses(source: ExportSource) -> list[tuple[str, str]]:
    """In nats a token."""
    result = source.run.result()
    rows = [
        ("Last training loss", None if source.part else result.get("final_loss")),
        ("Evaluation loss before", result.get("eval_loss_before")),
        ("… and after training", source.eval_loss),
    ]
    return [(name, f"{loss:.4f}") for name, loss in rows if isinstance(loss, float)]


def _cost(result: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    used = (result.get("peak_bytes") or {}).get("process")
    planned = (result.get("predicted_peak_bytes") or {}).get("process")
    if used:
        rows.append(("Peak memory", show_size(used) + (f" (planned {show_size(planned)})" if planned else "")))
    if "seconds" in result:
        rows.append(("Time", show_duration(result["seconds"])))
    return rows


def _licence(source: ExportSource) -> str:
    licence = licence_of(source)
    told = f"`{licence}`" if licence else "unknown to Nibble; see the base model's page before you share this"
    return f"## Licence\n\nThe base's licence is {told}. Its terms also apply to derived models."


def _inline(text: str) -> str:
    """A name inside Markdown, as it was written: neither a link nor HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _FENCE.sub("`", text)).replace("\n", " ")
