"""Held-out prompts for the starter, each with a check of the whole reply."""

from presets.starter.corpus import examples, held_out
from presets.starter.example import Example


def held_out_examples(count: int, seed: int = 20) -> list[Example]:
    """`count` different prompts of the corpus's kinds, none of which is anywhere in the corpus."""
    found: dict[str, Example] = {}
    for example in examples(seed):
        text = "\n".join(m["content"] for m in example.prompt)
        if held_out(example.prompt) and text not in found:
            found[text] = example
        if len(found) == count:
            break
    return list(found.values())
