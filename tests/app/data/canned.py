"""A desk that answers without reading anything: what the Data tab is tested against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import NibbleError

HOSTILE = '<script>document.title="run"</script><img src=x onerror=\'document.title="run"\'>${1+1}{{1+1}}'


def finding(code: str, severity: str, message: str, rows: list[int], count: int = 0) -> dict[str, Any]:
    """One entry of a report's `warnings`."""
    mend = f"Mend {code}."
    found = {"code": code, "severity": severity, "message": message, "mend": mend, "rows": rows}
    return {**found, "count": count or len(rows)}


def report(**changes: Any) -> dict[str, Any]:
    """The whole report of a dataset of 80 rows, three of them left out."""
    found = {
        "name": "my talks.jsonl",
        "bytes": 123_456,
        "files": [
            {"name": "my talks.jsonl", "kind": "jsonl", "encoding": "utf-8", "evidence": "plain ASCII", "rows": 80}
        ],
        "format": "sharegpt",
        "evidence": "`conversations` holds from/value turns in 80 of 80 rows",
        "columns": ["conversations", "id"],
        "alternatives": [{"format": "text", "evidence": "`id` holds text in 80 of 80 rows"}],
        "rows": 80,
        "usable": 77,
        "dropped": [
            {"row": 7, "reason": "The reply is empty."},
            {"row": 9, "reason": "The reply is empty."},
            {"row": 30, "reason": "There is no reply."},
        ],
        "truncated": 4,
        "tokens": {
            "total": 31_000,
            "trained": 12_400,
            "p50": 340,
            "p95": 900,
            "max": 2_310,
            "exact": True,
            "sample": None,
            "interval": None,
        },
        "warnings": [
            finding("very-short", "note", "2 replies have fewer than 3 tokens.", [3, 4]),
            finding("duplicate", "warning", "12 rows say exactly what an earlier row says.", [11, 12], 12),
            finding("no-end-of-turn", "error", "The end of turn is not trained: the model will not stop.", [1, 2]),
        ],
        "template": "Guanaco's, as the model has none",
        "max_length": 512,
        "train_on": "replies",
        "lengths": {"edges": [float(edge) for edge in range(0, 2401, 80)], "counts": [2, 9, 14, 12, 9, 8, *[1] * 24]},
        "suggestions": [
            {"max_length": 2320, "cuts": 0, "share": 0.0, "because": "cuts nothing"},
            {"max_length": 1024, "cuts": 3, "share": 0.009, "because": "cuts 3 rows (0.9 %)"},
        ],
        "padding": {"packed": 0.021, "padded": 0.31},
        "steps_per_epoch": 5,
        "seconds_per_epoch": 95.0,
        "seconds_basis": "as fast as the last run",
        "split": {"train": 70, "held_out": 7, "duplicates_kept_together": 12},
        "stage": "done",
        "progress": 1.0,
        "error": None,
    }
    return {**found, **changes}


def usable_row(number: int, said: str = "Hi  there\n") -> dict[str, Any]:
    """One row as the desk shows it."""
    return {
        "row": number,
        "rows": 80,
        "reason": None,
        "raw": {"id": number, "conversations": [{"from": "human", "value": said}, {"from": "gpt", "value": "Hello."}]},
        "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "Hello."}],
        "text": None,
        "tokens": [
            {"id": 1, "text": "<s>", "trained": False},
            {"id": [17, 18], "text": said, "trained": False},
            {"id": 9, "text": "Hello.", "trained": True},
            {"id": 2, "text": "</s>", "trained": True},
        ],
        "length": 5,
        "trained": 2,
        "truncated_here": False,
        "findings": ["duplicate"],
    }


class CannedHelper:
    """Stands where `Helper.call` does. `states` are given in turn, the last one over and over."""

    def __init__(self, *states: dict[str, Any], said: str = "Hi  there\n") -> None:
        self.states, self.said = list(states) or [report()], said
        self.asked: list[dict[str, Any]] = []

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        return getattr(self, f"_{arguments['do']}")(arguments)

    def _open(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.recipe = arguments["recipe"]
        return self._state(arguments)

    def _state(self, arguments: dict[str, Any]) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {**state, "max_length": self.recipe["data"]["max_length"]}

    def _row(self, arguments: dict[str, Any]) -> dict[str, Any]:
        number = min(arguments["number"], 80)
        if number in (7, 9):
            return {"row": number, "rows": 80, "reason": "The reply is empty.", "raw": {"x": self.said}, "tokens": []}
        return usable_row(number, self.said)

    def _rows_of(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"code": arguments["code"], "rows": list(range(11, 23))[arguments["start"] :], "count": 12}

    def _save_report(self, arguments: dict[str, Any]) -> dict[str, Any]:
        Path(arguments["path"]).write_text("{}", encoding="utf-8")
        return {"path": arguments["path"]}

    def _save_cleaned(self, arguments: dict[str, Any]) -> dict[str, Any]:
        raise NibbleError("The disk is full.")


def memory_plan(**changes: Any) -> dict[str, Any]:
    """A plan of 6 GiB at its peak within a budget of 8 GiB, as the helper answers."""
    gib = 2**30
    found = {
        "fits": True,
        "budget_bytes": 8 * gib,
        "budget_read": "8GiB = 8.00 GiB",
        "peak_bytes": {"tensors": 5 * gib, "reserved": int(5.5 * gib), "process": 6 * gib},
        "breakdown": {
            "weights": 3 * gib,
            "quant_constants": gib // 8,
            "adapters": gib // 4,
            "gradients": 0,
            "optimizer": gib // 2,
            "activations": gib,
            "logits": gib // 8,
            "workspace": 8192,
            "allocator": gib // 2 - 8192,
            "context": gib // 2,
        },
        "chosen": {"micro_batch": 4, "accumulation": 4, "checkpointing": "half"},
        "reasons": [
            {"setting": "micro_batch", "value": 4, "because": "a larger one would not be faster"},
            {"setting": "accumulation", "value": 4, "because": "4 x 4 conversations make one optimizer step"},
            {"setting": "checkpointing", "value": "half", "because": "it saves 1.20 GiB and takes 16% more time"},
            {"setting": "packed", "value": True, "because": "conversations share rows, so none is padded"},
        ],
        "assumed": [],
        "seconds_per_step": 2.1,
        "smallest_budget_bytes": 5 * gib,
        "ways": [],
        "steps": 120,
    }
    return {**found, **changes}
