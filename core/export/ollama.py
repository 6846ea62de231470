"""A Modelfile for Ollama: the GGUF, the template in Go's words, what ends a reply, and the settings of the chat."""

from __future__ import annotations

import json
from typing import Any

from core.build import load_tokenizer
from core.chat.sampling import Sampling
from core.export.card import Card
from core.export.companions import stop_tokens
from core.export.naming import safe_name
from core.export.place import ExportError
from core.export.subject import Subject
from core.export.turns import Turns, find_turns

MODELFILE = "Modelfile"
LONGEST_CONTEXT = 8192


def model_name(subject: Subject) -> str:
    """What the model is called in Ollama: lower case."""
    return safe_name(subject.run.name.lower(), "nibble").lower()


def command(subject: Subject) -> str:
    """The one command that imports the folder and asks the model; to be given in it."""
    name = model_name(subject)
    return f"ollama create {name} -f {MODELFILE} && ollama run {name}"


def modelfile(subject: Subject, model: str, adapter: str | None, context: int) -> str:
    """The Modelfile for the GGUF `model`, with the GGUF `adapter` over it or None. Raises ExportError: no template."""
    tokenizer = load_tokenizer(subject.base, subject.tokenizer)
    turns = find_turns(tokenizer)
    if turns is None:
        raise ExportError(
            "This model's chat template is not made of plain turns, so Ollama needs one written for it by hand. "
            "Export a GGUF instead, which carries the template as it is, or write a Modelfile of your own."
        )
    usual = Sampling()
    lines = [f"FROM ./{model}", *([f"ADAPTER ./{adapter}"] if adapter else [])]
    lines.append(f'TEMPLATE """{go_template(_without_begin_token(turns, tokenizer))}"""')
    lines += [
        f"PARAMETER stop {json.dumps(text, ensure_ascii=False)}" for text in stop_words(subject, tokenizer, turns)
    ]
    lines += [f"PARAMETER temperature {usual.temperature}", f"PARAMETER top_p {usual.top_p}"]
    lines.append(f"PARAMETER num_ctx {min(context, LONGEST_CONTEXT)}")
    return "\n".join(lines) + "\n"


def go_template(turns: Turns) -> str:
    """`turns` as a template of Go's text/template over Ollama's .Messages. Literals are quoted, so none is trimmed.

    A system prompt that the template does not take is left out.
    """
    system = told = ""
    if turns.begin_system is not None:
        system = f"{_say(turns.begin_system)}{{{{ .Content }}}}{_say(turns.after_system)}"
        told = "{{ $told = true }}"
    begin = f"{{{{ if eq $i 0 }}}}{_say(turns.begin)}{{{{ end }}}}" if turns.begin else ""
    return (
        "{{ $told := false }}{{ range $i, $message := .Messages }}"
        "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "system" }}}}{system}{told}'
        '{{ else if eq .Role "user" }}'
        f"{{{{ if $told }}}}{{{{ $told = false }}}}{{{{ else }}}}{begin}{_say(turns.before_question)}{{{{ end }}}}"
        f"{{{{ .Content }}}}{_say(turns.to_reply)}"
        '{{ else if eq .Role "assistant" }}'
        f"{_say(turns.before_reply)}{{{{ .Content }}}}{{{{ if not $last }}}}{_say(turns.after_reply)}{{{{ end }}}}"
        "{{ end }}{{ end }}"
    )


def _say(text: str) -> str:
    """A literal of the template: JSON writes a text as Go reads it."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _without_begin_token(turns: Turns, tokenizer: Any) -> Turns:
    """llama.cpp puts the first token there itself, where the tokenizer does."""
    begin = tokenizer.bos_token
    if not begin or tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        return turns
    system = turns.begin_system
    values = {"begin": turns.begin.removeprefix(begin), "begin_system": system and system.removeprefix(begin)}
    if not turns.begin.startswith(begin):
        values["before_question"] = turns.before_question.removeprefix(begin)
    return Turns(**{**vars(turns), **values})


def stop_words(subject: Subject, tokenizer: Any, turns: Turns) -> list[str]:
    """What ends a reply: the tokens that do, and what a question begins with where that is plain text."""
    words = [tokenizer.decode([token]) for token in stop_tokens(subject, tokenizer)]
    question = turns.before_question.strip()
    if question and not any(token in question for token in tokenizer.all_special_tokens):
        words.append(question)
    return list(dict.fromkeys(words))


def ollama_card(subject: Subject) -> Card:
    """The README's own part."""
    return Card(
        "a model for Ollama",
        f"`{subject.base_name}` fine-tuned with Nibble, as GGUF with a Modelfile: template, stop words and settings "
        "are those of the chat.",
        f"In this folder:\n\n```\n{command(subject)}\n```",
        "gguf",
        ("gguf", "ollama"),
    )
