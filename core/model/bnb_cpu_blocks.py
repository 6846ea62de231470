"""Makes bitsandbytes unpack four bits on a CPU by blocks, as it packed them: its kernels go by rows.

A block is 64 numbers of the whole matrix, row after row (QLoRA, section 3). The kernels that unpack on a CPU start a
block with every row (bitsandbytes 0.50.2, AVX512): where a row's length is no multiple of 64 they silently use wrong
constants, and the weights are twice as far from the original. Called with rows one block long, they are right.
"""

import ctypes
from typing import Any

from bitsandbytes.backends.cpu import ops


class _ByBlocks:
    """bitsandbytes' C library; the functions that unpack four bits are called with other row lengths."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        if not name.startswith(("cdequantize_blockwise_cpu_nf4", "cdequantize_blockwise_cpu_fp4")):
            return function

        def unpack(packed: Any, scales: Any, result: Any, block: Any, rows: Any, width: Any) -> Any:
            if width.value % block.value:
                numbers = rows.value * width.value
                even = numbers % block.value == 0
                rows, width = (numbers // block.value, block.value) if even else (1, numbers)
            return function(packed, scales, result, block, ctypes.c_longlong(_of(rows)), ctypes.c_longlong(_of(width)))

        return unpack


def _of(number: Any) -> int:
    return int(getattr(number, "value", number))


def install() -> None:
    """Install the fix in this process, once."""
    if not isinstance(ops.lib, _ByBlocks):
        ops.lib = _ByBlocks(ops.lib)
