"""A base model in memory: loaded in 4, 8 or 16 bits, with an adapter attached. Imports torch."""
