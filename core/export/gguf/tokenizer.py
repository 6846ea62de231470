"""A tokenizer as a GGUF holds it: tokens, their kinds, merges or scores, and how text is split before. No torch.

Two kinds are written, after the tokenizer.json that transformers keeps: byte-level BPE (llama.cpp's "gpt2"), and BPE
over characters with bytes for what is unknown, which sentencepiece makes (llama.cpp's "llama").
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from core.export.shared.destination import ExportError
from core.untrusted.chat_templates import TEMPLATE_ERRORS

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
# llama.cpp's names for the ways to split text, by the regular expression in tokenizer.json (src/llama-vocab.cpp).
_SPLITS = {
    _CONTRACTIONS + _WORD + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + _WORD + r"\p{N}" + _REST: "qwen2",
    _TEKKEN_WORDS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says of a tokenizer. `pre` and `merges` are of the kind "gpt2", `scores` of "llama".

    `add_space_prefix`: a space is put before each piece of text between special tokens, which is all that llama.cpp
    can be told; `at_the_head_only`: the tokenizer puts one before a text that begins with none of those.
    """

    kind: str
    tokens: list[str]
    types: list[TokenType]
    pre: str
    merges: list[str]
    scores: list[float]
    add_space_prefix: bool
    at_the_head_only: bool = False


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of the tokenizer in `folder`, filled up to the model's `size`. Raises ExportError."""
    try:
        spelt = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _unknown("it has no tokenizer.json") from None
    model = spelt["model"]
    if model.get("type") != "BPE":
        raise _unknown(f"it is of the kind {model.get('type')}")
    tokens, types = _tokens(spelt, size)
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    if model.get("byte_fallback"):
        scores = _scores(model, tokens)
        return Vocabulary("llama", tokens, types, "default", [], scores, *_prefixes_space(spelt))
    return Vocabulary("gpt2", tokens, types, _split_name(spelt), merges, [], False)


def _unknown(why: str) -> ExportError:
    return ExportError(
        f"This model's tokenizer cannot be written into a GGUF: {why}. Export the merged model or the adapter instead."
    )


def _tokens(spelt: dict[str, Any], size: int) -> tuple[list[str], list[TokenType]]:
    model = spelt["model"]
    tokens = {number: text for text, number in model["vocab"].items()}
    types = {number: TokenType.BYTE for number, text in tokens.items() if _BYTE.fullmatch(text)}
    types = types if model.get("byte_fallback") else {}
    unknown = model["vocab"].get(model.get("unk_token"))
    if unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    for added in spelt.get("added_tokens") or []:
        tokens[added["id"]] = added["content"]
        if types.get(added["id"]) != TokenType.UNKNOWN:
            types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    if max(tokens) >= size:
        raise _unknown(f"it has {max(tokens) + 1:,} tokens, and the model {size:,}")
    filled = [tokens.get(number, f"[PAD{number}]") for number in range(size)]
    kinds = [types.get(n, TokenType.NORMAL) if n in tokens else TokenType.UNUSED for n in range(size)]
    return filled, kinds


def _scores(model: dict[str, Any], tokens: list[str]) -> list[float]:
    """What sentencepiece merges by: the earlier a piece is merged in tokenizer.json, the higher its score."""
    order: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        order.setdefault(left + right, rank)
    last = float(len(order) + 1)
    return [-float(order[text]) if text in order else -last for text in tokens]


def _parts(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """A normaliser or pre-tokenizer as the list of its steps."""
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _prefixes_space(spelt: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a space is put before the text, and whether that is so at the head of a text only."""
    prepends = any(step["type"] == "Prepend" for step in _parts(spelt.get("normalizer"), "normalizers"))
    steps = _parts(spelt.get("pre_tokenizer"), "pretokenizers")
    schemes = [step.get("prepend_scheme", "always") for step in steps if step["type"] == "Metaspace"]
    return prepends or any(scheme != "never" for scheme in schemes), "first" in schemes


def _split_name(spelt: dict[str, Any]) -> str:
    """llama.cpp's name for how text is split before merging. Raises ExportError where Nibble knows none."""
    steps = _parts(spelt.get("pre_tokenizer"), "pretokenizers")
    kinds = [step["type"] for step in steps]
    last = steps[-1] if steps else {}
    if kinds == ["ByteLevel"] and last["use_regex"] and not last["add_prefix_space"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and last["use_regex"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not last["use_regex"]:
        name = _SPLITS.get(str(steps[0]["pattern"].get("Regex")))
        if name is not None:
            return name
    raise _unknown("it splits text in a way that Nibble knows no name of llama.cpp's for")


def write_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, tokenizer: Any) -> None:
    """Tokens and how text becomes them: that of the chat, where llama.cpp has no word for how any does."""
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.kind == "llama":
        writer.add_token_scores(vocabulary.scores)
        begins_with_token = (_chat(tokenizer) or "").startswith(tuple(tokenizer.get_added_vocab()))
        never = vocabulary.at_the_head_only and begins_with_token
        writer.add_add_space_prefix(vocabulary.add_space_prefix and not never)
    else:
        writer.add_token_merges(vocabulary.merges)


def write_special_tokens(writer: GGUFWriter, tokenizer: Any, stop: list[int]) -> None:
    """Which tokens begin, end and pad; `stop` are all that end a reply. Whether encoding adds the first or the last."""
    ids = tokenizer("a").input_ids
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    named = {"bos": begin, "eos": end, "pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id}
    for name, number in named.items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    others = [number for number in stop if number != end]
    for name, number in zip(("eot", "eom"), others, strict=False):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(adds_begin_token(tokenizer))
    writer.add_add_eos_token(end is not None and len(ids) > 1 and ids[-1] == end)


def adds_begin_token(tokenizer: Any) -> bool:
    """Where the tokenizer puts it before a text, and its chat template, if it has one, writes it too.

    llama.cpp takes it off what a template writes and adds it again, so a chat has it once. It would have it as well
    where the template leaves it out on purpose: then the file asks for none.
    """
    begin = tokenizer.bos_token
    if not begin or tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        return False
    text = _chat(tokenizer)
    return text is None or text.startswith(begin)


def _chat(tokenizer: Any) -> str | None:
    """A question as the chat template writes it; None where there is no template, or it refuses."""
    if not tokenizer.chat_template:
        return None
    question = [{"role": "user", "content": "a"}]
    try:
        return str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    except TEMPLATE_ERRORS:
        return None
