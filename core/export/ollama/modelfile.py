"""A Modelfile for Ollama: the GGUF, the template in Go's words, what ends a reply, and the settings of the chat."""

from dataclasses import replace
from typing import Any

from core.export.card.model_card import ModelCard
from core.export.gguf.tokenizer import adds_begin_token
from core.export.ollama.template import go_template
from core.export.ollama.template_turns import NoTurns, Turns, find_turns, pieces
from core.export.shared.destination import ExportError
from core.export.shared.names import safe_name
from core.export.shared.source import ExportSource
from core.export.shared.tokenizer_files import stop_tokens
from core.generation.sampling import Sampling
from core.model.load import load_tokenizer

MODELFILE = "Modelfile"
LONGEST_CONTEXT = 8192


def command(source: ExportSource) -> str:
    """The one command that imports the folder and asks the model; to be given in it."""
    name = safe_name(source.run.name.lower(), "nibble").lower()
    return f"ollama create {name} -f {MODELFILE} && ollama run {name}"


def modelfile(source: ExportSource, model: str, adapter: str | None, context: int) -> str:
    """The Modelfile for the GGUF `model`, with the GGUF `adapter` over it or None. Raises ExportError: no template."""
    tokenizer = load_tokenizer(source.base, source.tokenizer)
    try:
        turns = find_turns(tokenizer)
        template = go_template(without_begin_token(turns, tokenizer))
    except NoTurns as error:
        raise ExportError(
            f"This model's chat template cannot be converted for Ollama: it {error}. Export a GGUF instead, which "
            f"contains the original template, or write your own Modelfile."
        ) from None
    lines = [f"FROM ./{model}", *([f"ADAPTER ./{adapter}"] if adapter else [])]
    lines.append(f'TEMPLATE """{template}"""')
    lines += [said_stop(text) for text in stop_words(source, tokenizer, turns)]
    lines += [f"PARAMETER {name} {value}" for name, value in _settings().items()]
    lines.append(f"PARAMETER num_ctx {min(context, LONGEST_CONTEXT)}")
    return "\n".join(lines) + "\n"


def said_stop(text: str) -> str:
    """A stop word's line. A Modelfile takes what stands between quotes as it is: nothing in it is escaped."""
    quotes = '"""' if '"' in text else '"'
    return f"PARAMETER stop {quotes}{text}{quotes}"


def _settings() -> dict[str, float]:
    """The chat's settings by Ollama's names; what Ollama would add of its own is turned off."""
    usual = Sampling()
    return {
        "temperature": usual.temperature,
        "top_p": usual.top_p,
        "top_k": usual.top_k,
        "min_p": 0,
        "repeat_penalty": usual.repetition_penalty,
    }


def without_begin_token(turns: Turns, tokenizer: Any) -> Turns:
    """`turns` without the token that llama.cpp puts at the head of every prompt, where the GGUF asks it to."""
    if not adds_begin_token(tokenizer):
        return turns
    begin, system = tokenizer.bos_token, turns.begin_system
    return replace(turns, first=turns.first.removeprefix(begin), begin_system=system and system.removeprefix(begin))


def stop_words(source: ExportSource, tokenizer: Any, turns: Turns) -> list[str]:
    """What ends a reply: each single token that does, and what a question begins with where that is plain text."""
    added = tokenizer.get_added_vocab()
    ends = [tokenizer.convert_ids_to_tokens(token) for token in stop_tokens(source, tokenizer)]
    words = [token for token in ends if token in added]  # any other is no text that ends a reply wherever it stands
    question = turns.before_question.strip()
    is_sayable = all(letter.isprintable() or letter in "\t\n" for letter in question) and '"""' not in question
    if question and is_sayable and not any(token in question for token in added):
        words.append(question)
    return list(dict.fromkeys(words))


def _limits(source: ExportSource) -> str:
    """What Ollama's template says otherwise than the model's own, or cannot say."""
    turns = find_turns(load_tokenizer(source.base, source.tokenizer))
    said = ["Tools are not in the Modelfile's template: Ollama tells programs that the model takes none."]
    if turns.begin_system is None:
        said.append("The model takes no system prompt; Ollama refuses one.")
    if turns.cuts:
        said.append(
            "White space at the ends of what is said is cut off, as by the model's own template: ASCII's alone."
        )
    if turns.drops_thoughts:
        said.append("Ollama hands out what is thought apart from the reply, and leaves it out of what came before.")
    if any(kind == "date" for text in turns.literals for kind, _ in pieces(text)):
        said.append("Today's date is in its prompts, for which Ollama must know `currentDate` (August 2025 or newer).")
    return " ".join(said)


def ollama_card(source: ExportSource) -> ModelCard:
    """The README's own part."""
    return ModelCard(
        "a model for Ollama",
        f"`{source.base_name}` fine-tuned with Nibble, as GGUF with a Modelfile: template, stop words and settings "
        "are those of the chat.",
        f"In this folder:\n\n```\n{command(source)}\n```\n\n{_limits(source)}",
        "gguf",
        ("gguf", "ollama"),
    )
