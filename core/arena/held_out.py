"""The questions of a run's held-out conversations, which it never trained on, for matches. Both ends of the asking.

python -m core.arena.held_out      (started by `held_out`, speaks JSON lines: the split depends on the tokenizer)
"""

import contextlib
from collections.abc import Iterator

from core.arena.prompts import ArenaPrompt
from core.data.conversation import Conversation
from core.errors import NibbleError
from core.runs.find import find_run
from core.runs.store import Run
from core.system.child_process import Answer, Child, Request, serve
from core.workspace import Workspace, read_json, write_json

MOST = 500
_ROLES = frozenset({"system", "user", "assistant"})


def held_out(workspace: Workspace, run_id: str) -> list[ArenaPrompt]:
    """The questions of a run, at most MOST. Takes seconds the first time, and is kept.

    Raises NibbleError: no such run, its data are gone, or it held out no question.
    """
    run = find_run(workspace, run_id)
    kept = workspace.arena / f"held-out-{run.id}.json"
    found = read_json(kept)
    if not isinstance(found, list):
        log, purpose = workspace.state / "arena.log", "Reading the prompts of the validation split"
        with contextlib.closing(Child("core.arena.held_out", log, purpose)) as child:
            *_, answer = child.ask({"workspace": str(workspace.path), "run": run.id})
        found = answer["questions"]
        write_json(kept, found)
    if not found:
        raise NibbleError(
            f"{run.name} has no prompts in its validation split. Write your own, or use Nibble's prompts."
        )
    return [ArenaPrompt(tuple((role, content) for role, content in messages), f"run:{run.id}") for messages in found]


def questions_of(run: Run) -> list[list[tuple[str, str]]]:
    """What stands before the first reply in each conversation that `run` held out. Imports torch.

    Raises NibbleError where the run's data or model cannot be read.
    """
    from core.basemodel.find import find_model
    from core.data.cache import PreparedCache
    from core.data.dataset import load
    from core.data.prepared import prepare_data
    from core.data.split import split_rows
    from core.model.load import load_tokenizer

    recipe, file = run.recipe(), run.dataset_file()
    data = recipe.data
    tokenizer = load_tokenizer(find_model(recipe.model, run.base_revision()))
    prepared = prepare_data(file, data, tokenizer, PreparedCache.beside(file))
    _, held = split_rows(prepared.keys, prepared.named, data, recipe.train.seed)
    rows = {int(prepared.rendered.usable.rows[index]) for index in held}
    asked = (_question(each) for each in load(file, data).usable if each.row in rows)
    return [question for question in asked if question][:MOST]


def _question(conversation: Conversation) -> list[tuple[str, str]]:
    """The messages before the first reply to a question; none where there is no question, or tools are in it."""
    before: list[tuple[str, str]] = []
    for message in conversation.messages:
        role, content = message["role"], message["content"]
        if role not in _ROLES or not isinstance(content, str):
            return []
        if role == "assistant" and before and before[-1][0] == "user":
            return before
        before.append((role, content))
    return []


def _handle(request: Request) -> Iterator[Answer]:
    run = find_run(Workspace.open(request["workspace"]), request["run"])
    yield {"questions": questions_of(run), "done": True}


if __name__ == "__main__":
    raise SystemExit(serve(_handle, lambda request: False))
