"""The few exceptions that are written for a person: what is wrong, where, and what to do next."""


class NibbleError(Exception):
    """Something a person can mend. `str(error)` is one sentence to show as it is, without a traceback."""


class CallError(NibbleError):
    """A command called in a way that cannot be: exit status 2."""


class RecipeError(NibbleError):
    """A setting that is unknown, out of range, or contradicts another; names the key, the value, the range."""


class DataError(NibbleError):
    """A dataset that cannot be read or used; names the file, and the row or line where there is one."""


class ModelError(NibbleError):
    """A base model that cannot be found, read or loaded."""


class BudgetError(NibbleError):
    """A memory budget below what the settings need; names the smallest that would do."""


class TrainingError(NibbleError):
    """A run that cannot go on; says at which step, what is kept of it, and what to try."""


class RunError(NibbleError):
    """A run that does not exist, or that cannot do what was asked of it in its present state."""


class AskError(NibbleError):
    """A reply asked for in a way that cannot be. `setting` names what of it, and `code` why, both in OpenAI's words."""

    def __init__(self, message: str, setting: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.setting, self.code = setting, code


class ChildError(NibbleError):
    """A helper or chat process that ended before it answered."""
