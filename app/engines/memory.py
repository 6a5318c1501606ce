"""Memory that was freed, given back to the system. Elsewhere than on glibc, nothing is done.

An engine's weights are freed on another thread than the one that takes the next, and glibc keeps freed blocks
per thread. Measured over 30 swaps of the default checkpoint beside one another, 170 MB resident at first:
without any of this 523 MB (after 12), with `trim` alone 172 to 212 MB, with both 170 to 175 MB.
"""

from __future__ import annotations

import ctypes
import gc

M_MMAP_THRESHOLD = -3
BIG_BLOCK = 4 << 20
"""Bytes. Below it lie what a step needs, logits for one, which are better kept; above, weights and caches."""


def map_big_blocks() -> None:
    """Take big blocks from the system one by one, for all the life of the process; they go back when freed.

    glibc does so at first, but raises the limit to whatever it has seen freed.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, BIG_BLOCK)


def trim() -> None:
    """Give back what is free, objects in cycles included: a closed engine may be held by one."""
    gc.collect()
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    try:
        getattr(ctypes.CDLL(None), function)(*arguments)
    except (OSError, AttributeError):
        return
