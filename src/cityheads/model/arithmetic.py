"""The arithmetic that training and evaluation share, set for a while and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["fixed_arithmetic"]


@contextmanager
def fixed_arithmetic(threads: int) -> Iterator[None]:
    """Set the number of threads, on which the last bits of sums depend, and round the tiniest numbers to 0."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # numbers below 1e-38 cost a hundred times more on a CPU and carry nothing
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
