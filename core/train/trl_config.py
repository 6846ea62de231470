"""The recipe in trl's terms: optimizer, schedule, batches, dtype."""

from __future__ import annotations

from pathlib import Path

import torch
from trl import SFTConfig

from core.errors import RecipeError
from core.recipe import Recipe

# What stands in for the paged optimizers where there is no unified memory: the same AdamW in one fused kernel, or the
# same optimizer in ordinary memory.
UNPAGED = {
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_adamw_8bit": "adamw_8bit",
    "paged_lion_32bit": "lion_32bit",
    "paged_lion_8bit": "lion_8bit",
}
# As their authors have them: Loshchilov and Hutter, arXiv 1711.05101; Chen et al., arXiv 2302.06675.
ADAMW_BETA2, LION_BETA2 = 0.999, 0.99


def optimizer_name(wanted: str, device: str) -> str:
    """transformers' name for the optimizer `wanted` on `device`. Raises RecipeError where there is none like it."""
    if wanted == "adamw":
        return "adamw_torch_fused"
    if wanted == "auto":  # what it means until a plan has chosen: the adapters' dtype is the same for its choices
        wanted = "paged_adamw_32bit"
    if device == "cuda":
        return wanted
    if device == "mps" and "lion" in wanted:
        raise RecipeError("train.optimizer: there is no Lion for Apple's GPU. Choose adamw, or auto.")
    # bitsandbytes has no 8-bit optimizer for Apple's GPU.
    return "adamw_torch_fused" if device == "mps" else UNPAGED[wanted]


def trainer_config(
    recipe: Recipe,
    folder: Path,
    device: str,
    dtype: torch.dtype,
    steps: int,
    micro_batch: int,
    checkpointing: str,
    offload: bool = False,
) -> SFTConfig:
    """The recipe in trl's terms; `checkpointing` is 'off', 'half' or 'full'.

    With `offload` what is kept for the backward pass waits in ordinary memory. transformers' own saving, evaluating
    and reporting are off: the files are ours.
    """
    train = recipe.train
    return SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=train.effective_batch // micro_batch,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=round(train.warmup_ratio * steps),
        optim=optimizer_name(train.optimizer, device),
        adam_beta2=train.beta2 or (LION_BETA2 if "lion" in train.optimizer else ADAMW_BETA2),
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        neftune_noise_alpha=train.neftune_alpha,
        gradient_checkpointing=checkpointing != "off",
        gradient_checkpointing_kwargs={"use_reentrant": False},
        activation_offloading=offload,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device == "cpu",
        seed=train.seed,
        data_seed=train.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        router_aux_loss_coef=0.0,  # a mixture's routers are not trained, and no reply's loss holds a part of theirs
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
