"""The engine: everything that Nibble does, without a screen. Nothing in here imports gradio."""

import logging
import sys

# transformers and bitsandbytes fetch programs from a hub while they run, through this package, where it is installed;
# bitsandbytes then tells in every process that it could not.
sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
