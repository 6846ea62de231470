"""Keeps libraries from telling the person of their own affairs: what they will rename, what they tried to fetch."""

from __future__ import annotations

import warnings


def hush() -> None:
    """Silence what nobody can act on. Call it before the libraries are imported."""
    for library in ("transformers", "peft", "bitsandbytes", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=library)
    # Of a mixture's adapter, whose rank PEFT looks for among its modules only.
    warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match")
