"""One training step, as it is run and as it is traced: loss, fused LoRA, precision, checkpointing, packing."""
