"""The proof of an export in words, for a person: a sentence, and a line for each thing compared. Imports no torch."""

from typing import Any

# The proof as `export --json` gives it under `verified`: what verify.py returns.
Verified = dict[str, Any]
# The line of a GGUF that llama.cpp, which runs it, was not there to open.
NOT_OPENED = "template and tokens as llama.cpp reads them"
# A program that is not run for the proof, but read as its own rules say, and those rules.
_BY_ITS_RULES = {"Ollama": "Ollama's rules"}


def sentence(verified: Verified) -> str:
    """The proof, for a person: '20 of 20 replies equal, largest logit difference 0.004, against …'."""
    if not verified["prompts"]:
        read = (
            f" All {verified['tensors']} tensors were read back as they were written." if "tensors" in verified else ""
        )
        return f"Not verified by replies: {verified['because']}.{read}"
    ties = verified.get("ties", 0)
    tied = f"; {ties} differ only where the next two tokens are equally likely up to rounding" if ties else ""
    by = " by llama.cpp" if "llama_cpp" in verified else ""
    equal = f"{verified['equal']} of {verified['prompts']} replies{by} equal"
    said = f"{equal}{_logits(verified)}{tied}. Compared with {verified['against']}."
    if "tensors" in verified:
        said += f" All {verified['tensors']} tensors were read back as they were written."
    if "chat" in verified:
        chat = verified["chat"]
        said += (
            f" Compared with the chat in 4 bits: {chat['equal']} of {verified['prompts']} replies equal{_logits(chat)}."
        )
    for program in sorted({check["by"] for check in verified.get("checks", ())} & _BY_ITS_RULES.keys()):
        said += f" {program} itself was not run: Nibble followed its rules on top of llama.cpp."
    return said


def lines(verified: Verified) -> list[str]:
    """Each thing that was compared, a line for a person: 'Token ids: 412 of 412 equal, by transformers.'"""
    return [f"{check_name(check)}: {check_result(check)}" for check in told_checks(verified)]


def told_checks(verified: Verified) -> list[dict[str, Any]]:
    """The checks that have something to say: not those for which there was nothing to compare."""
    return [check for check in verified.get("checks", []) if check["of"] or check["because"]]


def check_name(check: dict[str, Any]) -> str:
    """What was compared, of one of `verified.checks`."""
    return str(check["name"][0].upper() + check["name"][1:])


def check_result(check: dict[str, Any]) -> str:
    """What came of it: '412 of 412 equal, by transformers.'"""
    because = check["because"]
    told = f" {because[0].upper()}{because[1:]}{'' if because.endswith('.') else '.'}" if because else ""
    by = _BY_ITS_RULES.get(check["by"], check["by"])
    if not check["of"]:
        return f"nothing to compare, by {by}.{told}"
    return f"{check['equal']:,} of {check['of']:,} equal, by {by}.{told}"


def is_equal(check: dict[str, Any]) -> bool:
    """Whether nothing was found to be different; answers that part where the model wavers are none."""
    return bool(check["name"] != NOT_OPENED and check["equal"] + check.get("ties", 0) >= check["of"])


def is_proved(verified: Verified) -> bool:
    """Whether it was let to answer, and nothing that was compared is different."""
    answered = verified["prompts"] and verified["equal"] + verified.get("ties", 0) == verified["prompts"]
    return bool(answered and all(is_equal(check) for check in told_checks(verified)))


def _logits(found: Verified) -> str:
    difference = found["largest_logit_difference"]
    return f", largest logit difference {difference:.2g}" if difference is not None else ""
