"""Facts that ship: the models and GPUs that Nibble knows, and what fits on them."""
