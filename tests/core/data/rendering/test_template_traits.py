"""Traits of published chat templates, each in a small one of our own: what is asked, and what exactly is learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Conversation, Message
from core.data.rendering.render import Renderer
from core.data.rendering.template import Template, TextLayout, Unrenderable, require_template
from core.recipe import DataSettings
from tests.chat_templates import TEMPLATES
from tests.tiny import tiny_tokenizer

END = "<|im_end|>"
TALK: list[Message] = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
]
THOUGHT = [TALK[0], {**TALK[1], "reasoning_content": "I add."}]
_LAST_USER = (
    "{%- set ns = namespace(last=-1) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
)


@dataclass(frozen=True)
class Trait:
    """A template, what it asks with once trained, and what is learned of two turns, each with the text before it."""

    template: str
    asks: str
    learned: tuple[str, str]
    asked: str = "as it is"
    texts: int = 1


TRAITS = {
    # Phi-4-mini: a second end of text, behind the last message only.
    "ends the whole, not each turn": Trait(
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
        "<|assistant|>",
        ("Two.<|end|>", f"Four.<|end|>{END}"),
    ),
    # Gemma 4: asked with an empty thought, which no reply in a conversation has.
    "asks with a closed thought": Trait(
        "{% for m in messages %}{{ '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content"
        " + '<turn|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|turn>model\\n<|channel>thought\\n<channel|>' }}{% endif %}",
        "<|turn>model\n",
        ("Two.<turn|>\n", "Four.<turn|>\n"),
        "fitted",
    ),
    # QwQ, Nemotron Nano 2, MiniMax M2: asked to think, and no thought is kept in a conversation.
    "asks to think and keeps no thought": Trait(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1] }}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
        "<|im_start|>assistant\n",
        (f"Two.{END}\n", f"Four.{END}\n"),
        "fitted",
    ),
    # GLM 4.7: the end of a block where there is no thought; a turn ends with the next one's mark.
    "ends a turn with the next": Trait(
        "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}"
        "{{ '<think>' + m.reasoning_content if m.reasoning_content }}{{ '</think>' }}{% endif %}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>' }}{% endif %}",
        "<|assistant|>",
        ("</think>Two.<|user|>", "</think>Four.<|user|>"),
        "fitted",
    ),
    # Nemotron 3: what a reply begins with depends on whether it has reasoning.
    "begins as the reasoning is": Trait(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n' if m.reasoning_content else '<think></think>' }}"
        "{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
        "<|im_start|>assistant\n",
        (f"<think></think>Two.{END}\n", f"<think></think>Four.{END}\n"),
        "fitted",
    ),
    # Qwen3-Thinking, DeepSeek V3.1: only the newest reply has its block.
    "drops the block of earlier replies": Trait(
        _LAST_USER + "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}",
        "<|im_start|>assistant\n<think>\n",
        (f"\n</think>\n\nTwo.{END}\n", f"\n</think>\n\nFour.{END}\n"),
        texts=2,
    ),
    # Many older ones: a template that knows nothing of add_generation_prompt.
    "does not ask": Trait(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}",
        "<|im_start|>assistant\n",
        (f"Two.{END}\n", f"Four.{END}\n"),
        "fitted",
    ),
    # gpt-oss: the newest reply ends in a token of its own.
    "ends the newest reply otherwise": Trait(
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + ('<|return|>' if loop.last and m.role =="
        " 'assistant' else '<|end|>') }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        "<|assistant|>",
        ("Two.<|return|>", "Four.<|return|>"),
        texts=2,
    ),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer to give templates to, which knows the marks of these."""
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"), None)
    marks = ["<|user|>", "<|assistant|>", "<|end|>", "<|return|>", "<|turn>", "<turn|>", "<think>", "</think>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks, "<|channel>", "<channel|>"]})
    return tokenizer


def _template(tokenizer: Any, text: str, **settings: Any) -> Template:
    tokenizer.chat_template = text
    return Template(tokenizer, DataSettings(**settings))


def _learned(layouts: list[TextLayout]) -> list[str]:
    return [layout.text[span.start : span.end] for layout in layouts for span in layout.spans]


def _asked(tokenizer: Any, messages: list[Message]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("name", TRAITS)
def test_each_reply_is_learned_behind_what_asks_for_it(name: str, bare: Any) -> None:
    trait = TRAITS[name]
    template = _template(bare, trait.template)
    layouts = template.lay_outs(Conversation(1, TALK))
    assert _learned(layouts) == list(trait.learned)
    assert (template.asked, len(layouts)) == (trait.asked, trait.texts)
    assert _asked(bare, TALK[:1]).endswith(trait.asks) and not _asked(bare, TALK[:1]).endswith(trait.asks * 2)
    for layout in layouts:
        for span in layout.spans:
            assert layout.text[: span.start] == _asked(bare, TALK[: span.message])


@pytest.mark.parametrize("name", TRAITS)
def test_the_last_reply_and_everything_need_less_proof(name: str, bare: Any) -> None:
    trait = TRAITS[name]
    last = _template(bare, trait.template, train_on="last_reply").lay_outs(Conversation(1, TALK))
    assert _learned(last) == [trait.learned[1]]
    template = _template(bare, trait.template, train_on="everything")
    whole = bare.apply_chat_template(TALK, tokenize=False)
    assert _learned(template.lay_outs(Conversation(1, TALK))) == [whole]


@pytest.mark.parametrize("name", TRAITS)
def test_reasoning_that_the_template_carries_is_learned(name: str, bare: Any) -> None:
    template = _template(bare, TRAITS[name].template)
    [layout] = template.lay_outs(Conversation(1, THOUGHT))
    [learned] = _learned([layout])
    assert "Two." in learned
    assert ("I add." in learned) == ("reasoning_content" in TRAITS[name].template)
    assert layout.text[: layout.spans[0].start] == _asked(bare, TALK[:1])


def test_a_turn_that_only_the_next_ends_is_learned_with_that_end(bare: Any) -> None:
    """GLM: `<|observation|>` behind a tool's call, `<|user|>` behind any other reply; a chat stops at both."""
    bare.add_special_tokens({"additional_special_tokens": ["<|observation|>"]}, replace_extra_special_tokens=False)
    text = (
        "{% for m in messages %}{{ '<|' + ('observation' if m.role == 'tool' else m.role) + '|>' + m.content }}"
        "{% for call in m.tool_calls or [] %}{{ '<call>' + call.function.name + '</call>' }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    talk = [
        TALK[0],
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        TALK[1],
    ]
    [layout] = _template(bare, text).lay_outs(Conversation(1, talk))
    assert layout.text == "<|user|>One?<|assistant|><call>add</call><|observation|>2<|assistant|>Two.<|user|>"
    assert _learned([layout]) == ["<call>add</call><|observation|>", "Two.<|user|>"]
    [layout] = _template(bare, text).lay_outs(Conversation(1, talk[:2]))
    assert _learned([layout]) == ["<call>add</call><|observation|>"]


def test_a_family_is_known_by_what_it_renders(bare: Any) -> None:
    """Qwen3's template as others ship it: names changed, a comment at the head; trl does not know it by its letters."""
    edited = "{#- for our models -#}\n" + TEMPLATES["qwen3"].replace("ns.", "state.").replace("set ns =", "set state =")
    template = _template(bare, edited)
    assert "renders like qwen3's" in template.source and template.marked
    assert bare.chat_template == TEMPLATES["qwen3_training"]
    different = edited.replace("<tool_response>", "<tool_answer>").replace("</tool_response>", "</tool_answer>")
    template = _template(bare, different)
    assert "prefixes" in template.source and not template.marked
    assert _learned(template.lay_outs(Conversation(1, TALK))) == [
        f"<think>\n\n</think>\n\n{reply}{END}\n" for reply in ("Two.", "Four.")
    ]


def test_a_prompt_fitted_to_its_replies_is_in_the_template_that_is_saved(bare: Any, tmp_path: Path) -> None:
    """DeepSeek's R1 distills: asked for a thought, answered without, and the role's mark in the marked place."""
    from transformers import AutoTokenizer

    template = _template(bare, TEMPLATES["deepseek_r1_distill"])
    assert (template.asked, template.dropped, template.marked) == ("fitted", "<think>\n", True)
    [layout] = template.lay_outs(Conversation(1, TALK[:2]))
    assert layout.text.endswith("<｜User｜>One?<｜Assistant｜>Two.<｜end▁of▁sentence｜>")
    assert _learned([layout]) == ["Two.<｜end▁of▁sentence｜>"]
    bare.save_pretrained(tmp_path)
    assert _asked(AutoTokenizer.from_pretrained(tmp_path), TALK[:1]).endswith("<｜User｜>One?<｜Assistant｜>")
    again = _template(bare, bare.chat_template)
    assert (again.asked, _learned(again.lay_outs(Conversation(1, TALK[:2])))) == ("as it is", _learned([layout]))


@pytest.mark.parametrize("choice", ["auto", "continued"])
def test_the_chat_asks_with_what_the_replies_were_learned_behind(choice: Any, tmp_path: Path) -> None:
    """With the tokenizer that was saved beside an adapter, and by a checkpoint's recipe where there is none."""
    from core.basemodel.find import find_model
    from core.chat.prompts import ChatPrompt
    from core.model.load import load_tokenizer
    from core.runs.chat_models import ChatModel
    from tests.tiny import tiny_model

    found = find_model(str(tiny_model(tmp_path / "base", template=TEMPLATES["deepseek_r1_distill"])))
    tokenizer = load_tokenizer(found)
    [layout] = Template(tokenizer, DataSettings(generation_prompt=choice)).lay_outs(Conversation(1, TALK[:2]))
    tokenizer.save_pretrained(tmp_path / "saved")
    data = {"template": "auto", "generation_prompt": choice, "system": "keep"}
    with_it, without = (ChatModel("k", "l", "m", None, {}, None, at, data) for at in (tmp_path / "saved", None))
    for voice in (with_it, without):
        prompt = ChatPrompt(voice, found)
        asked = prompt.tokenizer.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True)
        assert asked == layout.text[: layout.spans[0].start]


def test_replies_can_go_on_from_the_whole_prompt_with_the_block_closed(bare: Any) -> None:
    template = _template(bare, TEMPLATES["deepseek_r1_distill"], generation_prompt="continued")
    layouts = template.lay_outs(Conversation(1, TALK))
    assert _asked(bare, TALK[:1]).endswith("<｜User｜>One?<｜Assistant｜><think>\n")
    assert [layout.text for layout in layouts] == [
        f"{_asked(bare, TALK[:1])}\n</think>\n\nTwo.<｜end▁of▁sentence｜>",
        f"{_asked(bare, TALK[:3])}\n</think>\n\nFour.<｜end▁of▁sentence｜>",
    ]
    assert _learned(layouts) == [f"\n</think>\n\n{reply}<｜end▁of▁sentence｜>" for reply in ("Two.", "Four.")]
    [thought] = template.lay_outs(Conversation(1, THOUGHT))
    assert _learned([thought]) == ["I add.\n</think>\n\nTwo.<｜end▁of▁sentence｜>"]


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "keeps no thought"])
@pytest.mark.parametrize(
    "content", ["<think>I add.</think>Two.", "<think>\nI add.\n</think>\n\nTwo.", "I add.\n</think>\nTwo."]
)
def test_a_thought_in_the_content_goes_on_from_the_opened_block(name: str, content: str, bare: Any) -> None:
    text = TEMPLATES.get(name, TRAITS["asks to think and keeps no thought"].template)
    template = _template(bare, text, generation_prompt="continued")
    layouts = template.lay_outs(Conversation(1, [TALK[0], {"role": "assistant", "content": content}]))
    [learned] = _learned(layouts)
    thought, _, said = learned.partition("</think>")
    assert layouts[0].text.startswith(_asked(bare, TALK[:1]))
    assert (thought.strip(), said.split("<")[0].strip(), learned.count("think>")) == ("I add.", "Two.", 1)


def test_a_closed_thought_in_the_prompt_stays_closed(bare: Any) -> None:
    template = _template(bare, TRAITS["asks with a closed thought"].template, generation_prompt="continued")
    assert _learned(template.lay_outs(Conversation(1, TALK))) == ["Two.<turn|>\n", "Four.<turn|>\n"]
    assert _asked(bare, TALK[:1]).endswith("<|turn>model\n<|channel>thought\n<channel|>")


# Llama 3.x, SmolLM3, Granite, Qwen3-Coder look at the first message, which an empty conversation does not have.
LOOKS_AT_THE_FIRST = (
    "{%- if messages[0]['role'] == 'system' -%}{{ messages[0]['content'] }}{%- endif -%}"
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)


@pytest.mark.parametrize("text", [LOOKS_AT_THE_FIRST, TEMPLATES["llama3_1"], TEMPLATES["qwen3_instruct_2507"]])
def test_a_conversation_that_begins_with_the_assistant_is_learned_from_its_first_word(text: str, bare: Any) -> None:
    template = _template(bare, text)
    begun = [{"role": "assistant", "content": " Welcome!"}, *TALK]
    layouts = template.lay_outs(Conversation(1, begun))
    assert [layout.text for layout in layouts] == [bare.apply_chat_template(begun, tokenize=False)]
    said = [reply.lstrip() for reply in _learned(layouts)]
    assert [reply.split("<|")[0].split("!")[0] for reply in said] == ["Welcome", "Two.", "Four."]
    assert not any("assistant" in reply for reply in said)


def test_a_system_prompt_that_moves_to_the_newest_question_is_kept_in_front_of_each_reply(bare: Any) -> None:
    """Mistral Nemo: the system prompt stands before the last message, as long as that is a question."""
    moves = (
        "{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}"
        "{%- for m in messages if m['role'] != 'system' -%}{%- if m['role'] == 'user' -%}"
        "{{ '[INST] ' + (system + '\\n\\n' if loop.last and system else '') + m['content'] + '[/INST]' }}"
        "{%- else -%}{{ ' ' + m['content'] + eos_token }}{%- endif -%}{%- endfor -%}"
    )
    template = _template(bare, moves)
    layouts = template.lay_outs(Conversation(1, [{"role": "system", "content": "Be brief."}, *TALK]))
    assert [layout.text for layout in layouts] == [
        f"[INST] Be brief.\n\nOne?[/INST] Two.{END}",
        f"[INST] One?[/INST] Two.{END}[INST] Be brief.\n\nThree?[/INST] Four.{END}",
    ]
    assert [reply.strip() for reply in _learned(layouts)] == [f"Two.{END}", f"Four.{END}"]


def test_where_no_place_is_sure_the_row_is_refused_and_the_rest_is_not(bare: Any) -> None:
    """A template that writes a reply in words of its own."""
    shouts = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}{{ messages | length }}"
    template = _template(bare, shouts)
    with pytest.raises(Unrenderable, match="the reply's tokens cannot be identified"):
        template.lay_outs(Conversation(1, TALK))
    assert _learned(_template(bare, shouts, train_on="everything").lay_outs(Conversation(1, TALK)))


def test_a_row_in_several_texts_is_cut_or_dropped_as_one(bare: Any) -> None:
    bare.chat_template = TRAITS["drops the block of earlier replies"].template
    renderer = Renderer(bare, DataSettings())
    long = [*TALK[:2], {"role": "user", "content": "x" * 400}, TALK[3]]
    kept = [result for _, result in renderer.render_many([Conversation(7, long)], 128)]
    assert [(each.row, each.truncated) for each in kept] == [(7, True)]
    assert len(list(renderer.render_many([Conversation(7, long)], 2048))) == 2
    [(_, dropped)] = renderer.render_many([Conversation(7, [long[2], TALK[3]])], 64)
    assert "fills the 64 tokens" in dropped.reason


@pytest.mark.parametrize("error", [TypeError("no"), ValueError("no"), KeyError("no")])
def test_what_ends_trls_search_for_a_family_does_not_end_ours(
    bare: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr("trl.chat_template_utils.get_training_chat_template", fails)
    bare.chat_template = TRAITS["ends the whole, not each turn"].template
    assert "prefixes" in require_template(bare, DataSettings()).source


def test_reasoning_that_stands_twice_is_learned_once(bare: Any) -> None:
    template = _template(bare, TRAITS["begins as the reasoning is"].template)
    twice = {**THOUGHT[1], "content": "<think>\nI add.\n</think>\n\nTwo."}
    [layout] = template.lay_outs(Conversation(1, [TALK[0], twice]))
    assert _learned([layout]) == [f"<think>\nI add.\n</think>\nTwo.{END}\n"]
    tagged = {**twice, "reasoning_content": "<think>I  add.</think>\n"}
    assert _learned(template.lay_outs(Conversation(1, [TALK[0], tagged])))[0].count("think>") == 2
    other = {**twice, "reasoning_content": "Something else."}
    [layout] = template.lay_outs(Conversation(1, [TALK[0], other]))
    assert "Something else." in layout.text and "I add." in layout.text
