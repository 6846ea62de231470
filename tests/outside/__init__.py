"""A second pair of eyes: what Nibble's files say, recomputed by plain torch, transformers, peft and bitsandbytes.

Nothing of core or app is imported here; Nibble is asked through its command line alone, and read by the files that its
design documents. Not covered: what computes in 16 bits (GPUs, Apple's among them, and CPUs with AMX), whose rounding is
another; several devices; preference runs.
"""
