"""Generation, as the chat and the sample prompts do it: one way to build a prompt, one way to stop."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from core.data.conversation import Message
from core.errors import AskError, NibbleError
from core.generation.detokenise import Detokenizer
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.generation.template_variables import refuse_names, wanted_of_template
from core.model.vocabulary import refuse_beyond, rows_of, safe_pad
from core.text.library_errors import telling_line
from core.untrusted.chat_templates import TEMPLATE_ERRORS

UNKNOWN_CONTEXT = 2**31
# Between two looks at a reply that grows: a person sees no more, and the tokens are not held up by being told.
PAUSE_SECONDS = 0.04
# One thread for all replies: OpenMP makes its workers anew for every thread that it meets.
_generating = ThreadPoolExecutor(max_workers=1)


def prompt_ids(
    tokenizer: Any,
    messages: list[Message],
    most: int,
    in_parts: bool = False,
    asked: Mapping[str, Any] | None = None,
) -> list[int]:
    """The prompt as the template renders it, ready for a reply. Raises NibbleError: refused, or over `most` tokens.

    `in_parts`: for a template that takes a message's content as a list of parts. `asked`: what the request wants of the
    template (core/generation/template_variables.py).
    """
    if in_parts:
        messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
    try:
        wanted = wanted_of_template(tokenizer, asked or {})
        refuse_names(tokenizer, messages, wanted)
        encoded = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=True, **wanted
        )
    except TEMPLATE_ERRORS as error:
        said = telling_line(error)
        raise NibbleError(
            f"This model's chat template refuses the conversation: {said}. Leave the system prompt empty, undo a "
            f"message, or clear the conversation."
        ) from None
    ids = list(encoded["input_ids"])
    if len(ids) >= most:
        # In the words, and with the plain numbers, by which OpenAI's clients know it.
        raise AskError(
            f"This model's maximum context length is {most} tokens, and the conversation already has {len(ids)}. "
            f"Clear it, or write less.",
            "messages",
            "context_length_exceeded",
        )
    return ids


def context_length(model: Any) -> int:
    """How many tokens the model was made for; a large number where its config does not say."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or UNKNOWN_CONTEXT)


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a reply: the tokenizer's and the model's own."""
    own = model.generation_config.eos_token_id
    ids = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    return sorted(token for token in ids if token is not None)


class _Penalties(LogitsProcessor):
    """OpenAI's: a token loses `presence` once the reply has it, and `frequency` for each time (API reference)."""

    def __init__(self, prompt_tokens: int, sampling: Sampling) -> None:
        self.prompt_tokens = prompt_tokens
        self.presence, self.frequency = sampling.presence_penalty, sampling.frequency_penalty

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = input_ids[:, self.prompt_tokens :]
        counts = torch.zeros_like(scores).scatter_add_(1, said, torch.ones_like(said, dtype=scores.dtype))
        return scores - self.frequency * counts - self.presence * (counts > 0)


class _Listener(StoppingCriteria):
    """Hears every token as it comes, and ends generation after it where asked to, or where a text says so."""

    def __init__(self, said: Detokenizer, asked: Callable[[], bool]) -> None:
        self.said, self.asked = said, asked
        self.fresh = threading.Event()
        self.left = self.was_asked = False
        self.first_at = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.said.add(int(input_ids[0, -1]))
        self.first_at = self.first_at or time.perf_counter()
        self.was_asked = self.left or self.asked()
        self.fresh.set()
        ends = self.was_asked or self.said.stopped
        return torch.full((input_ids.shape[0],), ends, dtype=torch.bool, device=input_ids.device)


def stream(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    sampling: Sampling,
    asked_to_stop: Callable[[], bool] = lambda: False,
    started: float | None = None,
) -> Iterator[PartialReply]:
    """Reply to the tokens of `prompt`, piece by piece. Whoever leaves ends the reply too.

    `started` is when the wait for it began, by `time.perf_counter`; now, unless it is given.
    """
    context, started = context_length(model), started or time.perf_counter()
    most = min(sampling.max_new_tokens, context - len(prompt))
    listener = _Listener(Detokenizer(tokenizer, sampling.stop), asked_to_stop)
    endings = stop_ids(model, tokenizer)

    def piece(text: str, **last: Any) -> PartialReply:
        count, seconds = len(listener.said.ids), max(time.perf_counter() - started, 1e-9)
        first = max(listener.first_at - started, 0.0)
        known = context if context < UNKNOWN_CONTEXT else 0
        return PartialReply(
            text, count, count / seconds, first, prompt_tokens=len(prompt), context_tokens=known, **last
        )

    arguments = {
        **sampling.as_arguments(),
        "max_new_tokens": most,
        "eos_token_id": endings,
        "pad_token_id": safe_pad(tokenizer, rows_of(model)),
        "stopping_criteria": StoppingCriteriaList([listener]),
    }
    if sampling.presence_penalty or sampling.frequency_penalty:
        arguments["logits_processor"] = LogitsProcessorList([_Penalties(len(prompt), sampling)])
    work = _generating.submit(_generate, model, prompt, sampling.seed, arguments)
    work.add_done_callback(lambda _: listener.fresh.set())
    try:
        while not work.done():
            listener.fresh.wait()
            listener.fresh.clear()
            yield piece(listener.said.text().lstrip())
            wait([work], PAUSE_SECONDS)
    finally:
        listener.left = True
        wait([work])
    work.result()
    ends = _why_it_ended(listener, endings, most, sampling)
    yield piece(listener.said.final().strip(), done=True, ends=ends, ids=tuple(listener.said.ids))


def _generate(model: Any, prompt: list[int], seed: int | None, arguments: dict[str, Any]) -> None:
    if seed is not None:
        torch.manual_seed(seed)
    ids = torch.tensor([prompt], device=model.device)
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **arguments)


def _why_it_ended(listener: _Listener, endings: list[int], most: int, sampling: Sampling) -> str:
    ids = listener.said.ids
    if ids and ids[-1] in endings:
        return "end"
    if listener.said.stopped:
        return "stop"
    if listener.was_asked:
        return "asked"
    return "context" if most < sampling.max_new_tokens else "length"


def answers(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int) -> list[str]:
    """Greedy replies to all `prompts` at once, in their order."""
    if not prompts:
        return []
    rendered = [prompt_ids(tokenizer, [{"role": "user", "content": text}], context_length(model)) for text in prompts]
    pad = safe_pad(tokenizer, rows_of(model))
    for row in rendered:
        refuse_beyond(row, tokenizer, rows_of(model), "A sample prompt (evaluation.prompts)")
    width = max(map(len, rendered))
    where = model.device
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rendered], device=where)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rendered], device=where)
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            eos_token_id=stop_ids(model, tokenizer),
            pad_token_id=pad,
            max_new_tokens=max_new_tokens,
            **Sampling(greedy=True).as_arguments(),
        )
    return [text.strip() for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]
