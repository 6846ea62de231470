"""Writes the sample datasets, always the same bytes. `python presets/datasets/build.py`"""

import csv
import io
import itertools
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from presets.datasets import cards, oakhollow, pirate, toyshop  # noqa: E402
from presets.starter.example import Example  # noqa: E402

SEED = 7
ROWS = {"pirate": 400, "cards": 300, "toyshop": 240}
"""How many rows to take of each endless stream. Oakhollow has six rows per fact instead."""


def files() -> dict[str, str]:
    """The text of every dataset file by name."""
    return {
        "pirate.jsonl": _messages(list(itertools.islice(pirate.examples(SEED), ROWS["pirate"]))),
        "oakhollow.json": json.dumps(oakhollow.rows(SEED), indent=1, ensure_ascii=False) + "\n",
        "cards.csv": _table(list(itertools.islice(cards.examples(SEED), ROWS["cards"]))),
        "toyshop.json": _sharegpt(),
    }


def _messages(examples: list[Example]) -> str:
    """OpenAI's format: one conversation per line, `messages` with `role` and `content`."""
    return "".join(json.dumps({"messages": e.messages}, ensure_ascii=False) + "\n" for e in examples)


def _table(examples: list[Example]) -> str:
    """A table of two columns, `prompt` and `completion`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("prompt", "completion"))
    writer.writerows((e.messages[0]["content"], e.messages[1]["content"]) for e in examples)
    return text.getvalue()


def _sharegpt() -> str:
    """ShareGPT: `conversations` of turns with `from` and `value`."""
    speakers = {"user": "human", "assistant": "gpt"}
    made = [
        {"conversations": [{"from": speakers[m["role"]], "value": m["content"]} for m in visit]}
        for visit in itertools.islice(toyshop.orders(SEED), ROWS["toyshop"])
    ]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in made) + "\n]\n"


def main() -> None:
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
