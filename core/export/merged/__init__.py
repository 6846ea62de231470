"""Base and adapter merged into a whole model, shard by shard."""
