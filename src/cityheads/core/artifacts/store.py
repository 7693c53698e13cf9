"""``dataset/store/index.json``: which sub-chips the packed arrays hold, in which order, and the arrays' checksums."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["STORE_INDEX", "StoreIndex", "StoredArray"]


class StoredArray(TypedDict):
    """One ``.npy`` file: NumPy dtype, shape (N, ...), SHA-256 of its bytes."""

    dtype: str
    shape: list[int]
    sha256: str


class StoreIndex(TypedDict):
    """The packed arrays.

    Attributes:
        chips: Ids of the sub-chips, by position.
        chip_px: Side of a sub-chip in pixels.
        arrays: The arrays by layer: a modality or ``MASK_{label}``.
    """

    chips: list[str]
    chip_px: int
    arrays: dict[str, StoredArray]


STORE_INDEX = Artifact("index of the store", "pack_store", 1, StoreIndex)
