"""The recipe in trl's terms: optimizer, schedule, batches, dtype."""

from pathlib import Path

import torch
from trl import SFTConfig

from core.memory.strategy import Strategy
from core.recipe import Recipe
from core.step.optimizer import optimizer_for


def trainer_config(
    recipe: Recipe,
    folder: Path,
    device: str,
    dtype: torch.dtype,
    steps: int,
    strategy: Strategy,
    pages: bool = True,
) -> SFTConfig:
    """The recipe in trl's terms. transformers' own saving, evaluating and reporting are off: the files are ours.

    `pages`: whether a GPU has managed memory for paged optimizers.
    """
    train, optimizer = recipe.train, optimizer_for(recipe.train.optimizer, pages)
    return SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=strategy.micro_batch,
        gradient_accumulation_steps=train.effective_batch // strategy.micro_batch,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=round(train.warmup_ratio * steps),
        optim=optimizer.name_on(device),
        adam_beta2=train.beta2 or optimizer.beta2,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        neftune_noise_alpha=train.neftune_alpha,
        gradient_checkpointing=strategy.checkpointing != "off",
        gradient_checkpointing_kwargs={"use_reentrant": False},
        activation_offloading=strategy.offload,
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
