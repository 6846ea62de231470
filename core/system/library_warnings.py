"""Silences warnings of libraries that the user cannot act on, such as what they will rename."""

import logging
import warnings


def hush() -> None:
    """Silence them. Call it before the libraries are imported."""
    for library in ("transformers", "peft", "bitsandbytes", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=library)
    # Of a mixture's adapter, whose rank PEFT looks for among its modules only.
    warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match")
    # Of torch's varlen attention on Windows, where it comes without Triton (2.13, torch/utils/flop_counter.py).
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
