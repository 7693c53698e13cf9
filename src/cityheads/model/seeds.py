"""Streams of random numbers that depend on a seed and a name, and nothing else; the outer streams are put back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch

__all__ = ["mix", "own_stream", "seeded", "training_seed"]


def mix(*numbers: int) -> int:
    """Hash several numbers into one seed of 32 bits; torch's CPU generator does not look at more."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def training_seed(fold: int, seed: int) -> int:
    """Give the seed that a training draws from: the seed itself on fold 0, another one on each further fold.

    Folds that started from the same weights would have part of their training noise in common, which the intervals of
    the verdict take to be independent.
    """
    return seed if fold == 0 else mix(seed, fold)


def seeded(seed: int | None, name: str) -> AbstractContextManager[None]:
    """Draw torch's random numbers on the CPU from a stream that depends on the seed and a name.

    Args:
        seed: The seed; None leaves torch's stream as it is.
        name: Name of what is drawn.
    """
    return nullcontext() if seed is None else _stream(mix(seed, zlib.crc32(name.encode())))


@contextmanager
def _stream(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def own_stream() -> Iterator[None]:
    """Put torch's random streams back as they were, on the CPU and on every CUDA device in use."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
