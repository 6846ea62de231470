"""Gives every Python process that finds this folder in PYTHONPATH the stand-in GPU, once it imports torch."""

import os
import sys
from pathlib import Path

if "GPU_STANDIN_MACHINE" in os.environ:
    root = str(Path(__file__).resolve().parents[3])
    sys.path.append(root)
    from tests.gpu_standin import install

    install.when_torch_is_imported()
    sys.path.remove(root)
