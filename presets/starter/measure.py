"""Counts right replies, with the model as the app loads it. `python presets/starter/measure.py`"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from core.basemodel.find import find_model  # noqa: E402
from core.model.load import load_base  # noqa: E402
from core.recipe import QuantizationSettings  # noqa: E402
from core.system.hardware import device  # noqa: E402
from presets.starter.checks import held_out_examples  # noqa: E402
from presets.starter.example import Example  # noqa: E402


def load(folder: Path, four_bits: bool = True) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model as the app loads it, or as it is stored, in float32. Answers are padded on the left."""
    if four_bits:
        model = load_base(find_model(str(folder)), QuantizationSettings(), device())
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder, padding_side="left")


@torch.inference_mode()
def replies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], batch: int = 200
) -> list[str]:
    """Greedy replies. One that does not stop within 96 tokens is marked, so it is never right."""
    answers = []
    for start in range(0, len(examples), batch):
        made = tokenizer.apply_chat_template(
            [e.prompt for e in examples[start : start + batch]],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(model.device)
        out = model.generate(**made, max_new_tokens=96, do_sample=False)
        answers += tokenizer.batch_decode(out[:, made["input_ids"].shape[1] :], skip_special_tokens=False)
    return [_until_stop(a, tokenizer) for a in answers]


def _until_stop(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    reply, stop, _ = text.partition(tokenizer.eos_token)
    return reply if stop else text + " [does not stop]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--full-precision", action="store_true", help="without quantising")
    args = parser.parse_args()
    torch.set_num_threads(2)
    examples = held_out_examples(args.count, args.seed)
    answers = replies(*load(args.model, not args.full_precision), examples)
    wrong = [(e, a) for e, a in zip(examples, answers, strict=True) if not e.right(a)]
    for example, answer in wrong:
        print(f"asked  {example.prompt[-1]['content']}\nright  {example.messages[-1]['content']}\nsaid   {answer}\n")
    starts = Counter(e.prompt[-1]["content"].split()[0] for e, _ in wrong)
    print(f"{len(examples) - len(wrong)} of {len(examples)} right; wrong ones begin with {dict(starts.most_common(8))}")


if __name__ == "__main__":
    main()
