"""The engine: everything that Nibble does, without a screen. Nothing in here imports gradio."""

import sys

# transformers and bitsandbytes fetch programs from a hub while they run, through this package, where it is installed.
sys.modules["kernels"] = None  # type: ignore[assignment]
