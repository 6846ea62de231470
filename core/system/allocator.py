"""Has the C library give the memory of freed tensors back to the system at once. Imports no torch."""

import ctypes
import platform
import sys

M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
# Blocks from this size on get pages of their own, which go back to the system when they are freed (mallopt(3)).
RETURNED_FROM = 256 * 1024


def heap_can_return() -> bool:
    """Whether this system's C library can: glibc does."""
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def return_memory() -> None:
    """Return free memory to the system now, and from now on whenever a tensor is freed."""
    if not heap_can_return():
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, RETURNED_FROM)
    library.mallopt(M_TRIM_THRESHOLD, RETURNED_FROM)
    library.malloc_trim(0)
