"""A workspace in which everything that others may have written is a payload: names, notes, answers, errors, logs."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.chat.conversation import Turn
from core.arena.answers import Answer, AnswerBook
from core.arena.prompts import ArenaPrompt
from core.arena.votes import Side, Vote, VoteBook
from core.errors import NibbleError
from core.recipe import make_recipe
from core.runs.create import create_run
from core.workspace import Workspace, write_json
from tests.app.data import canned
from tests.security.payloads import as_file_name

Payloads = dict[str, str]
STATES = ("finished", "failed", "stopped")


def fill(workspace: Workspace, payloads: Payloads) -> None:
    """Write `payloads` wherever the app reads what it did not write itself."""
    said = list(payloads.values())
    for number, payload in enumerate(said):
        _run(workspace, number, said)
        _folder(workspace.path / "models" / as_file_name(payload), {"architectures": [payload], "model_type": payload})
        _folder(workspace.adapters / as_file_name(payload), _adapter(payload))
    _conversations(workspace, said)
    _arena(workspace, said)
    _exports(workspace, said)
    dataset(workspace, said)


def dataset(workspace: Workspace, said: list[str]) -> Path:
    """A kept dataset with a hostile name, columns and rows; it is what stands on the form."""
    file = workspace.datasets / "0123456789abcdef" / f"{as_file_name(said[0])}.jsonl"
    file.parent.mkdir(exist_ok=True)
    rows = [
        {"messages": [{"role": "user", "content": each}, {"role": "assistant", "content": each * 2}], each: each}
        for each in said
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    write_json(workspace.state / "form.json", {"data.path": str(file), "name": said[0][:80]})
    return file


def _run(workspace: Workspace, number: int, said: list[str]) -> None:
    """A run of one payload's name. What is seen of the newest ones when they are opened holds all of them."""
    payload, all_of_it = said[number], said if number >= len(said) - 3 else said[number : number + 1]
    whole = "\n".join(all_of_it)
    recipe = make_recipe({"name": payload[:80], "model": payload, "data.path": payload, "lora.targets": "all-linear"})
    run = create_run(workspace, recipe, {"file": payload, "sha256": "", "name": payload}, STATES[number % 3])
    run.write_labels(payload, whole, [payload, f"{number} {payload}"])
    run.write_status(message=whole, step=3, total=3, started=time.time() - 9, ended=time.time())
    for each in all_of_it:
        run.event(each, each)
        for step in (0, 1, 2):
            run.append("samples.jsonl", {"step": step, "prompt": each, "answer": f"{step} {each}"})
    for step in (0, 1, 2):
        run.append("metrics.jsonl", {"step": step, "loss": 2.0, "eval_loss": 2.0, "lr": 1e-4, "tokens": 9})
        run.append("memory.jsonl", {"seconds": step, "step": step, "allocated_bytes": 9, "process_bytes": 99})
    reasons = [{"setting": each, "value": each, "because": each} for each in all_of_it]
    write_json(run.dir / "plan.json", {"reasons": reasons, "budget_bytes": 2**30, "chosen": {payload: whole}})
    write_json(run.dir / "result.json", {"error": whole, "message": whole, "eval_loss": 1.0, "warnings": all_of_it})
    (run.dir / "worker.log").write_text(whole, encoding="utf-8")
    _folder(run.adapter, _adapter(payload), "adapter_config.json")


def _folder(folder: Path, config: dict[str, Any], name: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / (name or ("adapter_config.json" if "peft_type" in config else "config.json")), config)
    (folder / "adapter_model.safetensors").write_bytes(b"")


def _adapter(payload: str) -> dict[str, Any]:
    return {"peft_type": "LORA", "r": payload, "base_model_name_or_path": payload, "revision": payload}


def _conversations(workspace: Workspace, said: list[str]) -> None:
    turns = [turn for each in said for turn in (Turn("user", each), Turn("assistant", each, note=each))]
    write_json(workspace.state / "talk.json", [asdict(turn) for turn in turns])
    write_json(workspace.state / "chat.json", {"system": said[0], "stop": said[0], "seed": said[0], "talker": said[0]})
    whole = "\n\n".join(said)
    column = {"key": said[0], "label": said[0], "text": whole, "note": whole, "error": said[0]}
    kept = {"prompt": whole, "seed": 1, "differs": [[said[0], said[:2]]], "columns": [column, {**column, "error": ""}]}
    write_json(workspace.state / "compare.json", kept)


def _arena(workspace: Workspace, said: list[str]) -> None:
    votes, answers = VoteBook(workspace), AnswerBook(workspace)
    others = [*said[1:], said[0]]
    for first, second in zip(said, others, strict=True):
        left, right = Side(first, first, first, 3), Side(second, second, second, 3)
        votes.add([Vote(left, right, "left", judge=f"judge:{first}", prompt=first, source=second)])
    prompt = ArenaPrompt((("system", said[0]), ("user", "\n".join(said))), said[0])
    for number in range(2):
        side = Side(f"{number} {said[0]}", f"{number} {said[0]}", f"{number}\n\n" + "\n\n".join(said), 3)
        answers.add(Answer(f"{number}", side, prompt, {"seed": 1}))
    write_json(workspace.state / "arena.json", {"system": said[0], "judge_url": said[0], "source": "prepared"})


def _exports(workspace: Workspace, said: list[str]) -> None:
    folder = workspace.state / "exports"
    folder.mkdir(exist_ok=True)
    order = {"to": "adapter", "out": said[0], "onto": "dequantised", "precision": "auto"}
    for number, payload in enumerate(said):
        out = workspace.exports / as_file_name(payload)
        out.mkdir(exist_ok=True)
        (out / "README.md").write_text(f"```python\n{payload}\n```", encoding="utf-8")
        result = {"dir": str(out), "files": [payload], "bytes": 9, "verified": {"prompts": 1, "equal": 1}}
        job = {"state": "done", "message": payload, "share": None, "run": payload, "order": order, "result": result}
        write_json(folder / f"20260101-{number:06}-x.json", job)
    write_json(folder / "20260102-000000-x.json", {"state": "failed", "message": said[0], "order": order})


class HostileHelper(canned.CannedHelper):
    """What the helper would find in hostile data: every word of its answers is a payload."""

    def __init__(self, said: list[str]) -> None:
        whole = "\n".join(said)
        found = [canned.finding(payload, "warning", payload, [1, 2], 12) for payload in said]
        columns = {"columns": said, "turn_columns": {said[0]: said}, "speakers": said}
        files = [{"name": whole, "kind": whole, "encoding": whole, "evidence": whole, "rows": 80}]
        alternatives = [{"format": payload, "evidence": payload} for payload in said]
        dropped = [{"row": row, "reason": payload} for row, payload in enumerate(said, 1)]
        report = canned.report(warnings=found, evidence=whole, template=whole, name=whole, files=files, dropped=dropped)
        super().__init__({**report, **columns, "alternatives": alternatives, "seconds_basis": whole}, said=whole)

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        """`desk` as the real one; what else is asked has gone wrong, and says so in the payloads."""
        if op == "dataset":
            return super().__call__(op, **arguments)
        if op == "plan":
            raise NibbleError(self.said)
        if op == "preview":
            return {**canned.usable_row(arguments["row"], self.said), "findings": [], "max_length": 512}
        return {"ok": False, "errors": [{"message": self.said}], "because": self.said}
