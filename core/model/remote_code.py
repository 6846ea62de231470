"""Lets transformers build a model of an unknown kind from code that the person has agreed to.

`trust_remote_code` stays off everywhere. The classes come from the very files that were shown and agreed to, which are
kept in the workspace's state (code_consent.py), and are registered with transformers in this process. Without an
agreement to exactly the code that the model has now, none of it is run.
"""

from pathlib import Path

from core.basemodel.architectures import PURPOSES, needs_code
from core.basemodel.code_consent import RECORD, require_agreed, trusted
from core.basemodel.find import FoundModel
from core.errors import ModelError
from core.text.library_errors import telling_line
from core.untrusted.model_files import read_settings

_registered: dict[str, Path] = {}  # by kind: two models may each bring code of the same one


def admit(found: FoundModel) -> None:
    """Register the classes of a model's own code. Raises CodeNotAgreed, and ModelError where they do not load."""
    if not needs_code(found.config):
        return
    kind, folder = found.config["model_type"], require_agreed(trusted(), found)
    if folder is None or _registered.get(kind) == folder:
        return
    try:
        _register(kind, read_settings(folder / RECORD)["classes"], str(folder))
    except Exception as error:  # whatever code of strangers does when it is loaded
        reason = telling_line(error)
        raise ModelError(f"The code of {found.label} does not run with the installed transformers: {reason}.") from None
    _registered[kind] = folder


def _register(kind: str, classes: dict[str, str], folder: str) -> None:
    # Imported here: the helper's threads must import transformers through core/model/load.py only.
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.models.auto.auto_factory import add_generation_mixin_to_remote_model

    config, model = (get_class_from_dynamic_module(classes[name], folder) for name in PURPOSES[:2])
    AutoConfig.register(kind, config, exist_ok=True)
    AutoModelForCausalLM.register(config, add_generation_mixin_to_remote_model(model), exist_ok=True)
    if "AutoTokenizer" in classes:
        tokenizer = get_class_from_dynamic_module(classes["AutoTokenizer"], folder)
        AutoTokenizer.register(config, tokenizer_class=tokenizer, exist_ok=True)
